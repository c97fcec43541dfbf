"""MGD: masked generative distillation."""

from collections.abc import Sequence
from typing import Any, Literal, Optional

from torch import Tensor, nn

from mmrkd.models.losses import generation_error
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.numbers import require_weights
from mmrkd.models.necks import FeatureGenerator, Projection, draw_kept
from mmrkd.registry import MODELS
from mmrkd.structures import Features, StudentView, TeacherView, on_student_grid

DETECTION = dict(w_mgd=2e-5, ratio=0.65, hidden='cells')
CLASSIFICATION = dict(w_mgd=7e-5, ratio=0.15, hidden='channels')
BODY = 'backbone'  # whose last map stands for a classifier's pooled feature


@MODELS.register_module()
class MGD(DistillMethod):
    r"""Yang et al., `Masked Generative Distillation` (arXiv 2205.01529).

    .. math:: L = \alpha \sum_l \frac{1}{N} \sum \left(G_l(M_l \odot P_l(f_s^l)) - f_t^l\right)^2

    A random part of the student's feature is hidden, and a small generator G
    (:class:`~mmrkd.models.necks.FeatureGenerator`) makes the teacher's whole feature out of the rest. Each level has
    its own generator and its own P, a 1x1 convolution where the widths differ. A fresh mask M is drawn for each step,
    level and image. Levels are summed. All of this is as released.

    Detectors are compared on the matched levels of their necks; classifiers with a pooled feature on the last map of
    their backbones.

    Gradient contract: flows into the student's kept cells, P and G; the teacher is detached.

    Args:
        w_mgd: alpha. Defaults to the released one: 2e-5 for detectors (5e-7 for two-stage ones: give it), 7e-5 for
            classifiers.
        ratio: Probability of being hidden, lambda. Defaults to 0.65 for detectors (0.45 for two-stage ones: give it),
            0.15 for classifiers.
        hidden: What is hidden, ``'cells'`` (the default for detectors) or whole ``'channels'`` (for classifiers).
        levels: How many of the matched levels, finest first, are compared; ``None``: all. Defaults to None; 4 is the
            released value for two-stage detectors.

    Raises:
        ValueError: An argument is out of range, or the last maps of two classifiers lie on different grids.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.MGD', w_mgd=2e-5, ratio=0.65, hidden='cells'))
        >>> method.ratio
        0.65

        The error is a sum over an image, which is why the weight is small:

        >>> import torch
        >>> from mmrkd.models.losses import generation_error
        >>> generation_error(torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4))
        tensor(48.)
    """

    weights = {'w_mgd': 'loss_mgd'}
    compares_classes = False

    def __init__(
        self,
        w_mgd: Optional[float] = None,
        ratio: Optional[float] = None,
        hidden: Optional[Literal['cells', 'channels']] = None,
        levels: Optional[int] = None,
    ) -> None:
        super().__init__()
        require_weights('MGD', w_mgd=w_mgd or 0.0)
        if ratio is not None and not 0 < ratio < 1:
            raise ValueError(f'MGD: ratio is what is hidden, above 0 and below 1, found {ratio}')
        if hidden not in (None, 'cells', 'channels'):
            raise ValueError(f"MGD: hidden must be 'cells' or 'channels', found {hidden!r}")
        if levels is not None and levels < 1:
            raise ValueError(f'MGD: levels must be at least 1, found {levels}')
        self.w_mgd, self.ratio, self.hidden, self.levels = w_mgd, ratio, hidden, levels

    def setup(self, pair: Pair) -> None:
        """Fills in the defaults of the task and builds P and the generators."""
        for name, value in (DETECTION if pair.student.task == 'detection' else CLASSIFICATION).items():
            setattr(self, name, value if getattr(self, name) is None else getattr(self, name))
        if pair.match.vectors:
            self.student_taps = self.teacher_taps = (BODY,)
            own, others = self._last_maps(pair)
            widths = [own.shape[1]], [others.shape[1]]
        else:
            widths = pair.match.student_channels[: self.levels], pair.match.teacher_channels[: self.levels]
        self.projection = Projection(*widths, per_level=True, always=False)
        self.generators = nn.ModuleList(FeatureGenerator(width) for width in widths[1])

    def _last_maps(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """Last maps of the two backbones on a blank image."""
        pair.require_same_pixels('MGD')
        adapters = pair.student, pair.teacher.adapter
        own, others = (_last_map(adapter.dry_run_taps((BODY,))[BODY]) for adapter in adapters)
        strides = [adapter.pixels_per_cell(f) for adapter, f in zip(adapters, (own, others))]
        if strides[0] != strides[1]:
            raise ValueError(
                f'MGD compares the last maps of the backbones cell by cell, but their strides differ: the student has '
                f'{strides[0]}, the teacher {strides[1]}. Take a pair of equal strides, or a method on pooled features.'
            )
        return own, others

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_mgd``."""
        feats, targets = self._maps(student, teacher)
        errors = []
        for generator, feat, target in zip(self.generators, self.projection(feats), targets):
            errors.append(generation_error(generator(feat, draw_kept(feat, self.ratio, self.hidden)), target))
        return {'loss_mgd': self.w_mgd * sum(errors)}

    def _maps(self, student: StudentView, teacher: TeacherView) -> tuple[Features, Features]:
        if not self.student_taps:
            return student.feats[: self.levels], teacher.feats[: self.levels]
        own, others = (_last_map(view.taps[BODY]) for view in (student, teacher))
        return (own,), (on_student_grid(others, own),)


def _last_map(outputs: Any) -> Tensor:
    maps = [f for f in ((outputs,) if isinstance(outputs, Tensor) else outputs) if f.dim() == 4]
    if not maps:
        raise ValueError('MGD needs a map (N, C, H, W) at the end of the backbone, and it gives none')
    return maps[-1]
