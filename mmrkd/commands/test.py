"""Evaluate a checkpoint: plain or distilled, the student or several variants with what each costs.

Examples:
  mmrkd test CONFIG work_dirs/run/epoch_12.pth
  mmrkd test CONFIG CHECKPOINT --variants student integrated teacher --cost
  mmrkd test CONFIG CHECKPOINT --tta --out predictions.pkl --show-dir drawn
"""

import argparse

from mmrkd.arguments import add_common_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that mmdet users know, and ours."""
    add_common_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--variants', nargs='+', help='of a distillation: student, teacher, integrated, bridge, ...')
    parser.add_argument('--cost', action='store_true', help='also parameters, FLOPs and latency of each variant')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation of the student: flips, or yours')
    parser.add_argument(
        '--show-dir', metavar='DIR', help='draw predictions into this folder, below the work dir and the time'
    )
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to a pickle file')


def run(args: argparse.Namespace) -> None:
    """Tests, and prints the table of costs."""
    from mmrkd.engine.launch import apply_arguments
    from mmrkd.engine.prepare import is_distillation
    from mmrkd.engine.testing_options import augment_test, draw_predictions
    from mmrkd.plain_config import plain_config

    cfg = apply_arguments(args)
    if args.variants and not is_distillation(cfg):
        raise ValueError('--variants needs a distillation config: a plain model has only itself')
    if args.tta and (args.cost or set(args.variants or ()) - {'student'}):
        raise ValueError('--tta is for the student alone: leave --cost and the other --variants out')
    if args.variants:
        cfg.test_cfg = dict(type='mmrkd.VariantTestLoop', variants=args.variants)
    if args.tta:
        work_dir = cfg.work_dir
        cfg = augment_test(plain_config(cfg) if is_distillation(cfg) else cfg)
        cfg.work_dir = work_dir
    if args.show_dir:
        draw_predictions(cfg, args.show_dir)
    cfg.load_from = args.checkpoint
    _test(cfg, args)


def _test(cfg, args: argparse.Namespace) -> None:
    from mmrkd.engine.launch import build_runner
    from mmrkd.engine.prepare import TESTING, check_data, is_distillation
    from mmrkd.engine.resume import require_fit
    from mmrkd.engine.testing_options import dump_predictions

    if is_distillation(cfg):
        cfg.check = False
    check_data(cfg, TESTING)
    runner = build_runner(cfg, args.allow_pickle)
    if not is_distillation(cfg):  # what ours looks at by itself
        require_fit(runner.model, args.checkpoint, args.allow_pickle)
    if args.out:
        dump_predictions(runner, args.out)
    metrics = runner.test()
    if args.cost:
        from mmrkd.engine.cost import cost_table

        print(cost_table(runner.model, runner.test_dataloader, cfg.test_cfg.get('variants', ['student']), metrics))
