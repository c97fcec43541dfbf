"""Examines a distillation before it is trained: parts, wiring, losses of one batch, the teacher on a few images.

python tools/check_distill.py CONFIG [--teacher CONFIG --teacher-ckpt FILE --method era] [--images N]
                              [--ignore FAULT ...] [--cfg-options KEY=VALUE ...]

It prints what it found and ends with status 1 if there are problems; docs/check_distill.md lists them by name.
"""

import argparse
import os.path as osp
import sys
import time
import warnings

sys.path.insert(0, osp.dirname(osp.dirname(osp.abspath(__file__))))

from mmrkd.doctor import examine  # noqa: E402
from mmrkd.doctor.examination import quiet  # noqa: E402
from mmrkd.doctor.report import Report  # noqa: E402
from mmrkd.engine.compose import add_compose_arguments  # noqa: E402
from mmrkd.engine.launch import add_common_arguments, apply_arguments, read_config, report_errors  # noqa: E402


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description='Examine a distillation before it is trained')
    add_common_arguments(parser)
    add_compose_arguments(parser)
    parser.add_argument('--images', type=int, help='validation images for the teacher (default: 16, classifiers 64)')
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
    """Prints the report."""
    args, start = parse_args(), time.perf_counter()
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


if __name__ == '__main__':
    main()
