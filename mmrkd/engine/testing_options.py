"""What a test can do beside measuring: augment, draw, keep the predictions. The meaning is that of the libraries."""

from copy import deepcopy

from mmengine.config import Config, ConfigDict
from mmengine.evaluator import Evaluator
from mmengine.registry import METRICS
from mmengine.runner import Runner

FLIPPED = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')


def augment_test(cfg: Config) -> Config:
    """Tests a plain config on each image and its mirror image, or as its ``tta_model`` and ``tta_pipeline`` say.

    The defaults are those of the test scripts of mmdet (boxes merged by NMS) and mmpretrain (mean of the scores).

    Args:
        cfg: Config of a plain model; changed in place.

    Returns:
        The same config.

    Raises:
        ValueError: It has no ``tta_model`` and is of another library.
    """
    scope, dataset = cfg.get('default_scope'), cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if 'tta_model' not in cfg:
        if scope not in ('mmdet', 'mmpretrain'):
            raise ValueError(f'--tta: a config of {scope!r} needs a tta_model of its own')
        merged = dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
        detector = dict(type='mmdet.models.DetTTAModel', tta_cfg=merged)  # registered with mmengine, not with mmdet
        cfg.tta_model = detector if scope == 'mmdet' else dict(type='mmpretrain.AverageClsScoreTTA')
    if 'tta_pipeline' not in cfg:
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        pack = dict(type='PackDetInputs', meta_keys=FLIPPED) if scope == 'mmdet' else dataset.pipeline[-1]
        cfg.tta_pipeline = [*dataset.pipeline[:-1], dict(type='TestTimeAug', transforms=[flips, [deepcopy(pack)]])]
    model = cfg.model
    if cfg.get('data_preprocessor') is not None:  # the runner would give it to what is around the model
        model.setdefault('data_preprocessor', cfg._cfg_dict.pop('data_preprocessor'))
    cfg.model = ConfigDict(**cfg.tta_model, module=model)
    dataset.pipeline = cfg.tta_pipeline
    return cfg


def draw_predictions(cfg: Config, folder: str) -> None:
    """Lets the visualisation hook of a config draw the predictions of a test.

    Args:
        cfg: Config of a run; changed in place.
        folder: Where to; mmdet puts it below the work dir and the time of the run.

    Raises:
        ValueError: The config has no such hook.
    """
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise ValueError(
            '--show-dir: the config has no default_hooks.visualization; add '
            "default_hooks = dict(visualization=dict(type='DetVisualizationHook')), for classifiers 'VisualizationHook'"
        )
    if cfg.get('default_scope') == 'mmpretrain':
        hook.update(enable=True, out_dir=folder)
    else:
        hook.update(draw=True, test_out_dir=folder)


def dump_predictions(runner: Runner, path: str) -> None:
    """Lets a runner write the predictions of its test to a file.

    Args:
        runner: One that has not tested yet.
        path: Ends with ``.pkl`` or ``.pickle``.

    Raises:
        ValueError: It does not, or several variants are tested, each of which would write the file.
    """
    if not path.endswith(('.pkl', '.pickle')):
        raise ValueError(f'--out: expected a file that ends with .pkl, found {path!r}')
    variants = getattr(runner.test_loop, 'variants', ('student',))
    if len(variants) > 1:
        raise ValueError(f'--out holds the predictions of one variant: choose one with --variants, of {variants}')
    evaluator: Evaluator = runner.test_evaluator
    kind = 'mmdet.DumpDetResults' if runner.cfg.get('default_scope') == 'mmdet' else 'DumpResults'
    evaluator.metrics.append(METRICS.build(dict(type=kind, out_file_path=path)))
