"""Trains a distillation config, or any plain mmdet / mmpretrain config, with a teacher beside it if one is named.

python tools/train.py CONFIG [--teacher CONFIG --teacher-ckpt FILE --method era] [--work-dir DIR] [--amp]
                             [--resume [CKPT]] [--auto-scale-lr] [--allow-pickle] [--no-check] [--ignore FAULT]
                             [--cfg-options KEY=VALUE ...] [--launcher pytorch]
"""

import argparse
import os.path as osp
import sys

sys.path.insert(0, osp.dirname(osp.dirname(osp.abspath(__file__))))

from mmrkd.doctor import train_checked  # noqa: E402
from mmrkd.engine.compose import add_compose_arguments  # noqa: E402
from mmrkd.engine.launch import add_common_arguments, apply_arguments, build_runner, report_errors  # noqa: E402
from mmrkd.engine.prepare import prepare_config  # noqa: E402


def parse_args() -> argparse.Namespace:
    """Reads the command line: the arguments that mmdet users know."""
    parser = argparse.ArgumentParser(description='Train a student with a teacher')
    add_common_arguments(parser)
    add_compose_arguments(parser)
    parser.add_argument('--amp', action='store_true', help='mixed precision (bfloat16 on a CPU)')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    parser.add_argument(
        '--resume', nargs='?', const='auto', help='resume from a checkpoint; without a value, from the latest one'
    )
    parser.add_argument('--no-check', action='store_true', help='start without the pre-flight check')
    parser.add_argument(
        '--ignore',
        action='append',
        default=[],
        metavar='FAULT',
        help='a fault to accept, by name; may be given several times',
    )
    return parser.parse_args()


@report_errors
def main() -> None:
    """Builds the runner and trains."""
    args = parse_args()
    cfg = apply_arguments(args)
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.no_check:
        build_runner(prepare_config(cfg), args.allow_pickle).train()
    else:
        train_checked(cfg, args.ignore, args.allow_pickle)


if __name__ == '__main__':
    main()
