"""Separate the backbone of a plain config into a student and an assistant that cost no more together (ResidualKD).

Examples:
  mmrkd separate mmpretrain::resnet/resnet18_8xb32_in1k.py --assistant-share 0.25
  mmrkd separate CONFIG --input-size 320 --out pair.py
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument('config', help='plain config file, or a name such as mmpretrain::resnet/resnet18_8xb32_in1k.py')
    parser.add_argument(
        '--assistant-share', type=float, default=0.25, help='budget of the assistant (default: %(default)s)'
    )
    parser.add_argument(
        '--input-size', type=int, default=224, help='side of the image that is counted on (default: %(default)s)'
    )
    parser.add_argument('--out', help='file to write (default: the name of the config, with `-pair` behind the model)')


def run(args: argparse.Namespace) -> None:
    """Prints what the parts cost and writes the config of the pair."""
    import os.path as osp

    from mmrkd.engine.launch import read_config
    from mmrkd.export import separated_config
    from mmrkd.plain_config import written_out

    cfg, separation = separated_config(written_out(read_config(args.config)), args.assistant_share, args.input_size)
    model, _, rest = osp.basename(args.config).partition('_')
    out = args.out or f'{model}-pair_{rest}'
    cfg.dump(out)
    print(separation.table())
    print(f'written to {out}')
