"""`mmrkd export` from a clone that is not installed; `python tools/export_student.py --help` shows its arguments."""

import os.path as osp
import sys

sys.path.insert(0, osp.dirname(osp.dirname(osp.abspath(__file__))))

from mmrkd.commands import run_tool  # noqa: E402


def main() -> None:
    run_tool('export')


if __name__ == '__main__':
    main()
