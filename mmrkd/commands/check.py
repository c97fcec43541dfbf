"""Examine a distillation before it is trained: parts, wiring, losses of one batch, the teacher on a few images.

It prints what it found and ends with status 1 if there are problems; docs/check_distill.md lists them by name.

Examples:
  mmrkd check CONFIG
  mmrkd check STUDENT_CONFIG --teacher TEACHER_CONFIG --teacher-ckpt TEACHER.pth --method era --images 32
  mmrkd check CONFIG --ignore swapped
"""

import argparse

from mmrkd.arguments import add_common_arguments, add_compose_arguments, add_ignore_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_common_arguments(parser)
    add_compose_arguments(parser)
    parser.add_argument('--images', type=int, help='validation images for the teacher (default: 16, classifiers 64)')
    add_ignore_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Prints the report."""
    import sys
    import time
    import warnings

    from mmrkd.doctor import Report, examine
    from mmrkd.engine.isolation import quiet
    from mmrkd.engine.launch import apply_arguments, read_config

    start = time.perf_counter()
    warnings.simplefilter('ignore')
    report, cfg = Report(args.ignore), None
    with quiet(), report.expecting('config-unreadable'):
        read_config(args.config)
        with report.expecting('command-line', FileNotFoundError='teacher-config'):
            cfg = apply_arguments(args)
    if cfg is not None:
        report = examine(cfg, args.images, args.ignore)
    print(f'{report}\nchecked in {time.perf_counter() - start:.0f} s')
    sys.exit(1 if report.faults else 0)
