"""Compare finished runs on one page: table, curves, detections side by side, losses, diagnosis.

The config of a run is the one that its training wrote into its work dir.

Examples:
  mmrkd report work_dirs/teacher work_dirs/student work_dirs/era --out comparison
  mmrkd report alone=work_dirs/student 'with ERA=work_dirs/era'
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument('runs', nargs='+', metavar='WORK_DIR', help='work dirs of finished runs, or NAME=WORK_DIR')
    parser.add_argument(
        '--out',
        default='report',
        metavar='DIR',
        help='folder for report.html, table.md and pictures (default: %(default)s)',
    )
    parser.add_argument('--images', type=int, default=4, help='images in the picture of detections (default: 4)')


def run(args: argparse.Namespace) -> None:
    """Writes the comparison and prints its table."""
    import os

    from mmrkd.report import report

    runs = {}
    for text in args.runs:
        name, _, folder = text.rpartition('=')
        name = name or os.path.basename(os.path.normpath(folder))
        if name in runs:
            raise ValueError(f'two runs are called {name!r}: give names, NAME=WORK_DIR')
        runs[name] = (config_of(folder), folder)
    os.makedirs(args.out, exist_ok=True)
    print(report(runs, args.out, args.images))
    print(f'\nEverything is in {args.out}.')


def config_of(work_dir: str) -> str:
    """Returns the config that a training wrote into its work dir, the newest if there are several.

    Raises:
        FileNotFoundError: There is none.
    """
    import glob
    import os

    found = sorted(glob.glob(os.path.join(glob.escape(work_dir), '*.py')), key=os.path.getmtime)
    if not found:
        raise FileNotFoundError(f'{work_dir!r} is no work dir of a finished run: expected a config (*.py) in it')
    return found[-1]
