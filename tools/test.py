"""Evaluates a checkpoint: plain or distilled, the student or several variants with what each costs.

python tools/test.py CONFIG CHECKPOINT [--variants student integrated teacher] [--work-dir DIR]
                     [--allow-pickle] [--cfg-options KEY=VALUE ...] [--launcher pytorch]
"""

import argparse
import os.path as osp
import sys

sys.path.insert(0, osp.dirname(osp.dirname(osp.abspath(__file__))))

from mmrkd.engine.launch import add_common_arguments, build_runner, load_config, report_errors  # noqa: E402
from mmrkd.engine.prepare import is_distillation  # noqa: E402
from mmrkd.engine.resume import require_fit  # noqa: E402


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description='Test a plain or distilled checkpoint')
    add_common_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--variants', nargs='+', help='of a distillation: student, teacher, integrated, bridge, ...')
    parser.add_argument('--cost', action='store_true', help='also parameters, FLOPs and latency of each variant')
    return parser.parse_args()


@report_errors
def main() -> None:
    """Runs the test loop and prints the table of costs."""
    args = parse_args()
    cfg = load_config(args)
    cfg.load_from = args.checkpoint
    if args.variants:
        if not is_distillation(cfg):
            raise ValueError('--variants needs a distillation config: a plain model has only itself')
        cfg.test_cfg = dict(type='mmrkd.VariantTestLoop', variants=args.variants)
    runner = build_runner(cfg, args.allow_pickle)
    require_fit(runner.model, args.checkpoint, args.allow_pickle)
    metrics = runner.test()
    if args.cost:
        from mmrkd.engine.cost import cost_table

        print(cost_table(cfg, runner.model, runner.test_dataloader, cfg.test_cfg.get('variants', ['student']), metrics))


if __name__ == '__main__':
    main()
