"""Separates the backbone of a plain config into a student and an assistant that cost no more together (ResidualKD).

python tools/separate_model.py CONFIG [--assistant-share 0.25] [--input-size 224] [--out FILE]
"""

import argparse
import os.path as osp
import sys

sys.path.insert(0, osp.dirname(osp.dirname(osp.abspath(__file__))))

from mmrkd.engine.launch import read_config, report_errors  # noqa: E402
from mmrkd.export import separated_config  # noqa: E402


@report_errors
def main() -> None:
    """Prints what the parts cost and writes the config of the pair."""
    parser = argparse.ArgumentParser(description='Separate a backbone into a student and an assistant')
    parser.add_argument('config', help='plain config file, or a name such as mmpretrain::resnet/resnet18_8xb32_in1k.py')
    parser.add_argument(
        '--assistant-share', type=float, default=0.25, help='budget of the assistant (default: %(default)s)'
    )
    parser.add_argument(
        '--input-size', type=int, default=224, help='side of the image that is counted on (default: %(default)s)'
    )
    parser.add_argument('--out', help='file to write (default: the name of the config, with `-pair` behind the model)')
    args = parser.parse_args()
    cfg, separation = separated_config(read_config(args.config), args.assistant_share, args.input_size)
    model, _, rest = osp.basename(args.config).partition('_')
    out = args.out or f'{model}-pair_{rest}'
    cfg.dump(out)
    print(separation.table())
    print(f'written to {out}')


if __name__ == '__main__':
    main()
