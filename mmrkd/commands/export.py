"""Write what a distillation made as a plain config and a plain checkpoint.

Examples:
  mmrkd export CONFIG work_dirs/run/epoch_12.pth --out exported
  mmrkd export CONFIG CHECKPOINT --form integrated    the student with what the method trained behind it (ERA)
"""

import argparse

from mmrkd.arguments import add_config_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument('config', help='distillation config')
    parser.add_argument('checkpoint', help='checkpoint of its training')
    parser.add_argument('--out', default='exported', metavar='DIR', help='folder to write to (default: %(default)s)')
    parser.add_argument(
        '--form',
        '--variant',
        default='student',
        metavar='NAME',
        help="what to write (default: %(default)s): integrated with the teacher's head (ERA), student_alone without "
        'the assistant (ResidualKD), bridge (SemiOnlineKD), peer (deep mutual learning)',
    )
    parser.add_argument(
        '--allow-pickle', action='store_true', help='load a checkpoint that may run code: if you trust it'
    )
    add_config_options(parser)


def run(args: argparse.Namespace) -> None:
    """Exports and says what was written."""
    from mmrkd.engine.launch import read_config
    from mmrkd.export import export
    from mmrkd.plain_config import written_out

    cfg = read_config(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    config, checkpoint = export(written_out(cfg), args.checkpoint, args.out, args.form, args.allow_pickle)
    print(f'{args.form}: {config} {checkpoint}')
