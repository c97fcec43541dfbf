"""Write what a distillation made as a plain config and a plain checkpoint, and as ONNX.

Examples:
  mmrkd export CONFIG work_dirs/run/epoch_12.pth --out exported
  mmrkd export CONFIG CHECKPOINT --form integrated    the student with what the method trained behind it (ERA)
  mmrkd export CONFIG CHECKPOINT --to onnx --size 800 1344    one file: images to detections, or to scores
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
        '--to',
        choices=('plain', 'onnx'),
        default='plain',
        help='onnx: also one file that takes images, checked in onnxruntime; of a plain config, too (default: plain)',
    )
    group = parser.add_argument_group('ONNX')
    group.add_argument(
        '--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help='of the images (default: of the test pipeline)'
    )
    group.add_argument(
        '--outputs',
        choices=('detections', 'candidates', 'head'),
        help='of a detector: after suppression (the default), all boxes before it, or the maps of its head',
    )
    group.add_argument('--dtype', choices=('uint8', 'float32'), default='uint8', help='of the images (default: uint8)')
    parser.add_argument(
        '--allow-pickle', action='store_true', help='load a checkpoint that may run code: if you trust it'
    )
    add_config_options(parser)


def run(args: argparse.Namespace) -> None:
    """Exports and says what was written."""
    import os.path as osp

    from mmrkd.engine.launch import read_config
    from mmrkd.export import export
    from mmrkd.onnx_file import require_onnx, write_onnx
    from mmrkd.plain_config import written_out

    if args.to == 'onnx':
        require_onnx()  # before anything is written
    cfg = read_config(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    cfg = written_out(cfg)
    paths = export(cfg, args.checkpoint, args.out, args.form, args.allow_pickle, args.to == 'onnx')
    print(f'{args.form}: {" ".join(paths)}')
    if args.to == 'onnx':
        file = osp.join(args.out, f'{args.form}.onnx')
        print(write_onnx(*paths, file, args.size, args.outputs, args.dtype))
