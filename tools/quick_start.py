"""`mmrkd quickstart` from a clone that is not installed; `python tools/quick_start.py --help` shows its arguments."""

import os.path as osp
import sys

sys.path.insert(0, osp.dirname(osp.dirname(osp.abspath(__file__))))

from mmrkd.commands import run_tool  # noqa: E402


def main() -> None:
    sys.argv[1:1] = ['--out', osp.join(osp.dirname(osp.dirname(osp.abspath(__file__))), 'work_dirs', 'quick_start')]
    run_tool('quickstart')


if __name__ == '__main__':
    main()
