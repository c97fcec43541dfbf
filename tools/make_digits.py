"""Writes the digit scenes, a small COCO-format detection set made of scikit-learn's handwritten digits.

python tools/make_digits.py --root data/digits
"""

import argparse
import os.path as osp
import sys

sys.path.insert(0, osp.dirname(osp.dirname(osp.abspath(__file__))))

from mmrkd.datasets import make_digit_scenes  # noqa: E402


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description='Write a detection set made of handwritten digits')
    parser.add_argument('--root', default='data/digits', help='folder to write to (default: %(default)s)')
    parser.add_argument('--num-train', type=int, default=800, help='training scenes (default: %(default)s)')
    parser.add_argument('--num-val', type=int, default=150, help='validation scenes (default: %(default)s)')
    parser.add_argument('--num-test', type=int, default=150, help='test scenes (default: %(default)s)')
    parser.add_argument(
        '--image-size',
        type=int,
        nargs=2,
        default=(160, 160),
        metavar=('WIDTH', 'HEIGHT'),
        help='size of a scene in pixels (default: 160 160)',
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of everything random (default: %(default)s)')
    return parser.parse_args()


def main() -> None:
    """Writes the set, or says that it is there."""
    args = parse_args()
    try:
        written = make_digit_scenes(**vars(args))
    except (FileExistsError, ImportError, ValueError) as error:
        sys.exit(f'make_digits: {error}')
    print(f'digit scenes {"written to" if written else "are already in"} {args.root}')


if __name__ == '__main__':
    main()
