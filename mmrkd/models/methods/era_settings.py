"""What ERA does where its config says nothing, and which numbers it refuses."""

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from mmengine.logging import print_log

from mmrkd.adapters import ModelAdapter
from mmrkd.models.heads import OutputMimicry

CLASSIFICATION_DEFAULTS = dict(
    num_branches=4, w_kd=1.0, w_feat=5.0, w_res=1.0, w_twi=0.1, twi_on='all', twi_kd=True, standardize=False
)
DETECTION_DEFAULTS = dict(
    num_branches=2, w_kd=0.2, w_feat=0.3, w_res=0.3, w_twi=2.0, twi_on='last', twi_kd=False, standardize=True
)
HEATMAP_DEFAULTS = dict(DETECTION_DEFAULTS, w_kd=1.0, w_feat=0.002, w_res=0.002)  # whose task loss is 0.01 and less
BOX_WEIGHTS = dict(l1=20.0, distributions=1.0)


def with_defaults(given: Mapping[str, Any], vectors: bool, w_task: float, heatmaps: bool = False) -> dict[str, Any]:
    """Returns settings with a value in the place of each ``None``: of classifiers (vectors) or of detectors (maps).

    Beside the loss of heatmaps, which is small, the weights of features are smaller (ours).

    Args:
        given: Name of a setting -> value or ``None``.
        vectors: Whether the features are pooled.
        w_task: Factor of the default of ``w_twi``.
        heatmaps: Whether the task loss is the squared error of heatmaps. Defaults to False.
    """
    defaults = dict(HEATMAP_DEFAULTS if heatmaps else CLASSIFICATION_DEFAULTS if vectors else DETECTION_DEFAULTS)
    defaults['w_twi'] *= w_task
    chosen = {name: defaults[name] if value is None else value for name, value in given.items()}
    if chosen['twi_on'] == 'none':
        chosen['w_twi'] = 0.0
    return chosen


def branch_scales(count: int, given: Optional[Sequence[float]], vectors: bool) -> list[float]:
    """Returns s_1 .. s_N: those given, else 1, 1/2, 1/4, ... for vectors and 1 for maps."""
    decay = 0.5 if vectors else 1.0
    return list(given or [decay**index for index in range(count)])


def check_branches(count: int, start: Optional[int], scales: Optional[Sequence[float]]) -> None:
    """Raises ValueError if there is no branch, or more of them start or have a scale than there are."""
    if count < 1:
        raise ValueError(f'num_branches must be at least 1, found {count}')
    if start is not None and not 1 <= start <= count:
        raise ValueError(f'start_branches must be in [1, {count}] (num_branches), found {start}')
    if scales is not None and (len(scales) != count or min(scales) <= 0):
        raise ValueError(f'branch_weights: expected {count} numbers > 0, found {list(scales)}')


def soft_targets(
    adapter: ModelAdapter, w_kd: float, tau: Optional[float], w_box: Optional[float], tau_box: float
) -> OutputMimicry:
    """Returns what compares the student's outputs with the teacher's, with boxes as far as they can be compared.

    Args:
        adapter: Of the student.
        w_kd: Weight of the whole; at 0 no box is looked at.
        tau: Temperature of the logits, see :class:`OutputMimicry`.
        w_box: Relative weight of the boxes; ``None`` chooses it by their form (:data:`BOX_WEIGHTS`), and none, with a
            message, where they cannot be compared.
        tau_box: Temperature of box distributions.
    """
    if not (w_kd and adapter.has_boxes):
        w_box = 0.0
    elif w_box is None:
        w_box = BOX_WEIGHTS['distributions' if adapter.box_bins > 1 else 'l1']
        if adapter.box_obstacle is not None:
            print_log(f'ERA: boxes have no soft targets: {adapter.box_obstacle}', 'current')
            w_box = 0.0
    return OutputMimicry(adapter, tau, w_box, tau_box)
