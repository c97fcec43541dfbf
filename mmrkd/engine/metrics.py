"""Which metric sums up a run."""

from typing import Any, Optional

from mmengine.config import Config

from mmrkd.adapters import ModelAdapter


def main_metric(cfg: Config, adapter: Optional[ModelAdapter] = None) -> str:
    """Returns the metric that a run is judged by: what its best checkpoint is chosen by, else that of its task.

    Args:
        cfg: Config of a run. ``save_best`` of its checkpoint hook counts if it is the name of a metric; of several the
            first. The name of a variant in front of it (``'integrated/coco/bbox_mAP'``) is left out.
        adapter: Adapter of the model. Defaults to None.

    Returns:
        The name as the validation reports it for the student.

    Raises:
        ValueError: The config names none and no adapter is given.
    """
    named = _save_best(cfg)
    if named is not None:
        variant, _, rest = named.partition('/')
        return rest if variant in ((cfg.get('val_cfg') or {}).get('variants') or ()) else named
    if adapter is None:
        raise ValueError(
            'which metric sums up this run? Its config has no save_best that names one. Name it: '
            "default_hooks=dict(checkpoint=dict(save_best='coco/bbox_mAP'))"
        )
    return adapter.main_metric


def found_metric(cfg: Config, adapter: ModelAdapter, metrics: dict[str, Any]) -> str:
    """Returns :func:`main_metric` if it is among the metrics of an evaluation, else the first of them."""
    name = main_metric(cfg, adapter)
    return name if name in metrics else next(iter(metrics))


def _save_best(cfg: Config) -> Optional[str]:
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    named = checkpoint.get('save_best')
    named = named[0] if isinstance(named, (list, tuple)) and named else named
    return named if isinstance(named, str) and named != 'auto' else None
