"""Look at a small distilled detector, without data and without a training.

It finds handwritten digits: a RetinaNet of 8 channels that ERA trained on the scenes of `mmrkd quickstart`. Without an
image, a scene is made of digits that it has never seen (which needs scikit-learn).

Examples:
  mmrkd demo
  mmrkd demo photo.png --out found.png
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument('image', nargs='?', help='image with digits in it (default: a scene is made)')
    parser.add_argument('--out', default='demo.png', metavar='FILE', help='picture to write (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the scene that is made (default: %(default)s)')
    parser.add_argument(
        '--score-thr', type=float, default=0.4, metavar='SCORE', help='what is less sure is not shown (default: 0.4)'
    )


def run(args: argparse.Namespace) -> None:
    """Draws what the detector finds, and prints it."""
    from mmrkd.demo import show

    print(show(args.image, args.out, args.seed, args.score_thr))
    print(f'{args.out} shows it.')
