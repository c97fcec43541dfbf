r"""Train a distillation, or any plain config of mmdet or mmpretrain, with a teacher beside it if one is named.

Examples:
  mmrkd train CONFIG --work-dir work_dirs/first
  mmrkd train mmdet::retinanet/retinanet_r18_fpn_1x_coco.py --method era \
      --teacher mmdet::retinanet/retinanet_r101_fpn_2x_coco.py --teacher-ckpt r101.pth
  mmrkd train CONFIG --resume                 go on with the newest intact checkpoint of the work dir
  torchrun --nproc_per_node 8 -m mmrkd train CONFIG --launcher pytorch
"""

import argparse

from mmrkd.arguments import add_common_arguments, add_compose_arguments, add_ignore_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that mmdet users know, and ours."""
    add_common_arguments(parser)
    add_compose_arguments(parser)
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision (on a CPU bfloat16, where it computes that natively)'
    )
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from a checkpoint; without a value, from the latest one',
    )
    parser.add_argument('--no-check', action='store_true', help='start without the pre-flight check')
    add_ignore_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Trains."""
    from mmrkd.doctor import train_checked
    from mmrkd.engine.launch import apply_arguments
    from mmrkd.engine.prepare import is_distillation

    cfg = apply_arguments(args)
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.no_check and is_distillation(cfg):
        cfg.check = False
    train_checked(cfg, args.ignore, args.allow_pickle)
