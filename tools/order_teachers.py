"""Says in which order several teachers should teach a student, one after the other (MTPD), and why.

The costs are measured on images of the student's validation set, and so are the metrics that are not given.

    python tools/order_teachers.py CONFIG STUDENT.pth --teacher r101=CONFIG,r101.pth --teacher x101=CONFIG,x101.pth
"""

import argparse
import os.path as osp
import sys

sys.path.insert(0, osp.dirname(osp.dirname(osp.abspath(__file__))))


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='plain config of the student')
    parser.add_argument('ckpt', help='its checkpoint, trained without a teacher')
    parser.add_argument(
        '--teacher', action='append', required=True, type=teacher, metavar='NAME=CONFIG,CHECKPOINT', help='one or more'
    )
    parser.add_argument(
        '--score', action='append', default=[], type=score, metavar='NAME=METRIC', help='known; of the student, too'
    )
    parser.add_argument('--images', type=int, default=64, help='of the validation set (default: %(default)s)')
    parser.add_argument('--resize', choices=('nearest', 'bilinear', 'area'), help='where strides differ')
    parser.add_argument('--at', default='backbone', choices=('backbone', 'penultimate'), help='which features')
    return parser.parse_args(arguments)


def teacher(text):
    name, _, files = text.partition('=')
    cfg, _, ckpt = files.partition(',')
    if not (name and cfg and ckpt):
        raise argparse.ArgumentTypeError(f'expected NAME=CONFIG,CHECKPOINT, found {text!r}')
    return name, dict(cfg=cfg, ckpt=ckpt)


def score(text):
    name, _, value = text.partition('=')
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f'expected NAME=METRIC, found {text!r}') from None


def main(arguments=None):
    from mmrkd.engine.launch import read_config
    from mmrkd.engine.teacher_order import find_order

    args = parse(arguments)
    cfg, teachers, scores = read_config(args.config), dict(args.teacher), dict(args.score)
    print(find_order(cfg, args.ckpt, teachers, args.images, scores, args.resize, args.at))


if __name__ == '__main__':
    from mmrkd.engine.launch import report_errors

    report_errors(main)()
