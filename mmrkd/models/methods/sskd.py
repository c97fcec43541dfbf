"""SSKD: a teacher hands over how similar it finds turned images to the originals, too."""

import logging
from collections.abc import Sequence
from typing import Callable, Optional, Union

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from mmrkd.models.losses import kept_kl, kept_rows, kl_divergence, turned_similarities
from mmrkd.models.methods.base import DistillMethod, Pair, Phase
from mmrkd.models.methods.numbers import require_positive, require_share, require_weights
from mmrkd.models.methods.ramp import ramp_factor
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView

TURNS = dict(turned_90=1, turned_180=2, turned_270=3)
SCHEDULES, SOURCES = ('beside', 'first'), ('device', 'pipeline')
LEAST_ACCURACY = 0.5
AnyView = Union[StudentView, TeacherView]


@MODELS.register_module()
class SSKD(DistillMethod):
    r"""`Knowledge distillation meets self-supervision` (arXiv 2006.07114). Classifiers.

    .. math:: L = w_{ce} L_{task}(z_s) + w_{kd}\, kd + w_{tf}\, tf + w_{ss}\, ss

    .. code:: text

        image ──┬─ 0 ────────── features f_0 ── G ── g_0 ──┐
                ├─ 90 ┐                                    ├─ cos ── S (3N, N), softmax over the originals
                ├─ 180 ├─────── features f ──── G ── g ────┘
                └─ 270┘

    kd compares the logits of the originals, tf those of the turned images, ss the similarities S of teacher and
    student, the last two on the rows of which the teacher knows enough (:func:`~mmrkd.models.losses.kept_rows`). The
    head of the teacher, G_t, is trained on its frozen features to find the original of each turned image; it belongs
    to this method, and the teacher stays what it is. G_s is trained with the student. S compares the images of one
    process; nothing is gathered.

    The release's: all terms, their weights and temperatures, the shares, the heads (two linear layers and a ReLU, as
    wide as the features), one BatchNorm batch of all four views, 60 epochs for G_t before the student begins. Not
    repeated: an unstable order of equal ranks. Ours: ``schedule='beside'``, turning on the device, the ramp.

    ``schedule='first'`` has two phases (:class:`mmrkd.engine.hooks.PhaseHook`): in ``head`` only G_t learns, the
    student with its BatchNorm is held, and in ``student`` G_t is. ``max_epochs`` counts both; the schedules of the
    student's learning rate begin (``begin=``) where it does.

    Gradient contract: kd, tf and ss flow into the student and G_s; what the teacher and G_t say is detached. The loss
    of G_t flows into G_t alone.

    Args:
        w_ce: Weight of the student's own losses, on the originals. Defaults to 0.1.
        w_kd: Defaults to 0.9.
        w_tf: Defaults to 2.7.
        w_ss: Defaults to 10.
        tau_kd: Temperature of kd. Defaults to 4.
        tau_tf: Temperature of tf. Defaults to 4.
        tau_ss: Temperature of ss. Defaults to 0.5.
        ratio_tf: Share of the turned images that the teacher gets wrong and that count all the same, in [0, 1].
            Defaults to 1.
        ratio_ss: The same for rows of S. Defaults to 0.75.
        schedule: ``'beside'``: G_t learns beside the student, and ss joins in later, by a ramp; or ``'first'``.
            Defaults to ``'beside'``.
        head_epochs: After how many epochs ss joins in (full after twice as many), or the student begins. Defaults to a
            tenth of the training (``'beside'``) or 60 (``'first'``, as in the release).
        rotate: ``'device'``: the finished batch is turned, one crop for all four views, square images only; or
            ``'pipeline'``: the pipeline gives the views ``turned_90``, ``turned_180`` and ``turned_270``, as in the
            release, each with a crop of its own (``view_names`` of the distiller). Defaults to ``'device'``.
        joint: Whether the student sees all views as one BatchNorm batch. Defaults to True, as in the release.

    Raises:
        ValueError: A number or name is out of range, the models are no classifiers, their heads do not line up, or
            images are mixed. In training: they are not square, or an image has no single class.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.SSKD', schedule='first', head_epochs=60))
        >>> [phase.name for phase in method.phases], method.phase_epochs
        (['head', 'student'], (60,))

        Of the turned images that the teacher gets wrong, the share counts that it gets least wrong:

        >>> import torch
        >>> from mmrkd.models.losses import kept_rows
        >>> scores = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [2.0, 1.0, 3.0]])
        >>> kept_rows(scores, torch.tensor([0, 0, 0]), ratio=0.5)
        tensor([ True, False,  True])
    """

    weights = {'w_kd': 'loss_kd', 'w_tf': 'loss_tf', 'w_ss': 'loss_ss'}
    needed_hooks = ('PhaseHook',)  # without it no phase begins, and nothing says when ss is to join in

    def __init__(
        self,
        w_ce: float = 0.1,
        w_kd: float = 0.9,
        w_tf: float = 2.7,
        w_ss: float = 10.0,
        tau_kd: float = 4.0,
        tau_tf: float = 4.0,
        tau_ss: float = 0.5,
        ratio_tf: float = 1.0,
        ratio_ss: float = 0.75,
        schedule: str = 'beside',
        head_epochs: Optional[int] = None,
        rotate: str = 'device',
        joint: bool = True,
    ) -> None:
        super().__init__()
        require_weights('SSKD', w_ce=w_ce, w_kd=w_kd, w_tf=w_tf, w_ss=w_ss)
        require_positive('SSKD', tau_kd=tau_kd, tau_tf=tau_tf, tau_ss=tau_ss)
        require_share('SSKD', ratio_tf=ratio_tf, ratio_ss=ratio_ss)
        least = 1 if schedule == 'first' else 0
        if schedule not in SCHEDULES or rotate not in SOURCES or (head_epochs is not None and head_epochs < least):
            raise ValueError(
                f'SSKD: schedule must be one of {SCHEDULES}, rotate one of {SOURCES}, head_epochs at least {least}, '
                f'found {schedule!r}, {rotate!r} and {head_epochs}'
            )
        self.task_weight, self.w_kd, self.w_tf, self.w_ss = w_ce, w_kd, w_tf, w_ss
        self.tau_kd, self.tau_tf, self.tau_ss = tau_kd, tau_tf, tau_ss
        self.ratio_tf, self.ratio_ss, self.joint = ratio_tf, ratio_ss, joint
        self.head_epochs = 60 if head_epochs is None and schedule == 'first' else head_epochs
        if schedule == 'first':
            self.phases = (Phase('head', task_weight=0.0), Phase('student', task_weight=w_ce))
            self.phase_epochs = (self.head_epochs,)
        names = tuple(TURNS)
        self.views, self.made_views = ((), names) if rotate == 'device' else (names, ())
        self._judged = False

    def setup(self, pair: Pair) -> None:
        """Checks that both are classifiers whose heads line up, and builds G_s and G_t."""
        pair.require_classifiers('SSKD')
        self.student_head = _contrastive_head(pair.match.student_channels[-1])
        self.teacher_head = _contrastive_head(pair.match.teacher_channels[-1])

    def make_views(self, inputs: Tensor) -> dict[str, Tensor]:
        """Returns the batch, turned."""
        if self.made_views and inputs.shape[-1] != inputs.shape[-2]:
            raise ValueError(
                f'SSKD turns square images, found {tuple(inputs.shape[-2:])} pixels: crop them square, or let the '
                "pipeline turn them (rotate='pipeline')"
            )
        return {name: torch.rot90(inputs, TURNS[name], (2, 3)) for name in self.made_views}

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_head`` of G_t, and ``loss_kd``, ``loss_tf`` and ``loss_ss`` where the student learns."""
        if self.phases and self.phase is None:
            raise ValueError(
                "SSKD(schedule='first') needs mmrkd.PhaseHook, which enters its phases: train with mmrkd.Runner"
            )
        by_head = self._similarities(teacher, self.teacher_head)
        own = torch.arange(len(teacher.inputs), device=by_head.device).repeat_interleave(len(TURNS))
        accuracy = (by_head.argmax(dim=1) == own).float().mean()
        losses = {'loss_head': F.cross_entropy(by_head, own), 'head_accuracy': accuracy}
        if self.phase == 'head':
            return losses
        if self.phases:
            del losses['loss_head']  # it has learnt
        labels = self.pair.student.targets(samples).to(own.device)
        z_s, z_t = (torch.cat(self.pair.student.logits(view.outputs)) for view in (student, teacher))
        losses['loss_kd'] = self.w_kd * kl_divergence(z_s, z_t, self.tau_kd)
        turned_s, turned_t = (self._turned(view, self._logits) for view in (student, teacher))
        kept = kept_rows(turned_t, labels.repeat_interleave(len(TURNS)), self.ratio_tf)
        losses['loss_tf'] = self.w_tf * kept_kl(turned_s, turned_t, kept, self.tau_tf)
        factor = 1.0 if self.phases else ramp_factor(self.progress, self.head_epochs)
        self._judge(factor, accuracy)
        kept = kept_rows(by_head, own, self.ratio_ss)
        similarity = kept_kl(self._similarities(student, self.student_head), by_head, kept, self.tau_ss)
        losses['loss_ss'] = factor * self.w_ss * similarity
        return losses

    def frozen_modules(self) -> list[nn.Module]:
        """Returns what does not learn in the present phase: all but G_t, and then G_t."""
        held = self.teacher_head if self.phase == 'student' else nn.ModuleList([self.student_head])
        frozen = list(held.modules())
        return frozen if self.phase == 'student' else [*self.pair.student.model.modules(), *frozen]

    def _turned(self, view: AnyView, read: Callable[[AnyView], Tensor]) -> Tensor:
        """Reads each turned view, image by image as the release does: the three of image 0, those of image 1, ..."""
        return torch.stack([read(view.views[name]) for name in TURNS], dim=1).flatten(0, 1)

    def _logits(self, view: AnyView) -> Tensor:
        return torch.cat(self.pair.student.logits(view.outputs))

    def _similarities(self, view: AnyView, head: nn.Module) -> Tensor:
        turned = self._turned(view, _pooled)
        return turned_similarities(head(turned), head(_pooled(view)))

    def _judge(self, factor: float, accuracy: Tensor) -> None:
        """Warns, once, of a head that knows too little when it begins to be listened to."""
        if factor and not self._judged and self.progress is not None:
            self._judged = True
            if accuracy < LEAST_ACCURACY:
                print_log(
                    f'SSKD: its head finds the original of only {float(accuracy):.0%} of the turned images of this '
                    'batch, and the student begins to learn from it: give it more time (head_epochs)',
                    'current',
                    logging.WARNING,
                )


def _contrastive_head(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))


def _pooled(view: AnyView) -> Tensor:
    feat = view.feats[-1]
    return feat if feat.dim() == 2 else feat.mean(dim=(2, 3))
