"""Writes what a distillation made as plain files.

python tools/export_student.py CONFIG CHECKPOINT --out DIR [--form student|integrated|student_alone|bridge|peer]
                                  [--cfg-options KEY=VALUE ...]
"""

import argparse
import os.path as osp
import sys

sys.path.insert(0, osp.dirname(osp.dirname(osp.abspath(__file__))))

from mmengine.config import DictAction  # noqa: E402

from mmrkd.engine.launch import read_config, report_errors  # noqa: E402
from mmrkd.export import export  # noqa: E402


@report_errors
def main() -> None:
    """Exports and says what was written."""
    parser = argparse.ArgumentParser(description='Export a distilled student as plain files')
    parser.add_argument('config', help='distillation config')
    parser.add_argument('checkpoint', help='checkpoint of its training')
    parser.add_argument('--out', default='exported', help='folder to write to (default: %(default)s)')
    parser.add_argument(
        '--form',
        '--variant',
        default='student',
        help="what to write (default: %(default)s): integrated with the teacher's head (ERA), student_alone without "
        'the assistant (ResidualKD), bridge (SemiOnlineKD), peer (deep mutual learning)',
    )
    parser.add_argument(
        '--allow-pickle', action='store_true', help='load a checkpoint that may run code: if you trust it'
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override settings, as in the training')
    args = parser.parse_args()
    cfg = read_config(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    config, checkpoint = export(cfg, args.checkpoint, args.out, args.form, args.allow_pickle)
    print(f'{args.form}: {config} {checkpoint}')


if __name__ == '__main__':
    main()
