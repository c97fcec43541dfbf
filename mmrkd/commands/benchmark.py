"""Time what a distillation costs at training: a plain step, the teacher's features, the formula, all of it, in turn.

It prints medians, quartiles, operations and memory of each, what a step is over the sum of its parts (R; with the
methods' own formula among them, R*), and passes and waits for the device. docs/step_cost.md says how to read it.

Examples:
  mmrkd benchmark CONFIG --steps 20
  mmrkd benchmark STUDENT_CONFIG --teacher TEACHER_CONFIG --teacher-ckpt TEACHER.pth --method era
  mmrkd benchmark CONFIG --generated 800 1333 --batch-size 2      no data is read
  mmrkd benchmark CONFIG --generated 800 1333 --batch-size 8 --amp --json step.json
"""

import argparse

from mmrkd.arguments import add_common_arguments, add_compose_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_common_arguments(parser)
    add_compose_arguments(parser)
    parser.add_argument('--steps', type=int, default=10, help='repetitions that count (default: %(default)s)')
    parser.add_argument('--warmup', type=int, default=2, help='repetitions before them (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, help="images of a step (default: the config's)")
    parser.add_argument(
        '--generated', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help='random images of this size, not the data'
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision, as in training')
    parser.add_argument('--json', metavar='FILE', help='write everything that was measured into a file, too')
    parser.add_argument('--device', help='cpu, or cuda (default: cuda where there is one)')


def run(args: argparse.Namespace) -> None:
    """Times and prints the table."""
    import json

    import torch

    from mmrkd.engine.benchmark import benchmark, random_batch, real_batch
    from mmrkd.engine.launch import apply_arguments
    from mmrkd.engine.prepare import check_data, is_distillation

    cfg = apply_arguments(args)
    if not is_distillation(cfg):
        raise ValueError('expected a distillation: give its config, or --teacher, --teacher-ckpt and --method')
    if min(args.steps, args.batch_size or 1) < 1:
        raise ValueError(f'--steps and --batch-size must be at least 1, found {args.steps} and {args.batch_size}')
    if args.batch_size:
        cfg.train_dataloader.batch_size = args.batch_size
    if args.generated is None:
        check_data(cfg, ('train_dataloader',))
    batch = real_batch(cfg) if args.generated is None else random_batch(cfg, tuple(args.generated))
    device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    found = benchmark(cfg, batch, device, args.steps, args.warmup)
    print(found.table())
    if args.json:
        with open(args.json, 'w') as file:
            json.dump(found.as_dict(), file, indent=1)
