"""OnlineEnsemble: branches of one student teach each other, without a teacher (OKDHP)."""

from collections.abc import Sequence
from typing import Any, Literal, Optional

import torch
from torch import Tensor

from mmrkd.adapters import ModelAdapter
from mmrkd.models.heads import CopyVariant, StudentBranches, sum_losses
from mmrkd.models.losses import class_kl, consistency_ramp, heatmap_kl, heatmap_mse, mixed_maps
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.last_map import last_map
from mmrkd.models.methods.numbers import require_weights
from mmrkd.models.necks import AggregationUnit
from mmrkd.models.variants import Variant
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView

RAMP_SHARE = 0.4  # the released 60 of 150 epochs


@MODELS.register_module()
class OnlineEnsemble(DistillMethod):
    r"""Online Knowledge Distillation for Efficient Pose Estimation (OKDHP, arXiv 2108.02092), for dense tasks.

    One trunk x, B branches with an upper part each; a unit
    (:class:`~mmrkd.models.necks.AggregationUnit`) mixes what they say, channel by channel, into a better answer, and
    that teaches every branch:

    .. math::
        E &= \sum_b a_b(x) H_b, \qquad a = softmax_b(unit(x)) \\
        L &= \sum_b L_{task}(H_b) + w_e L_{task}(E) + w_{kd}\, r \sum_b KL(E \| H_b), \qquad
        r = \exp(-5 (1 - \min(t / ramp, 1))^2)

    Branch 1 is the student itself (:class:`~mmrkd.models.heads.StudentBranches`): it is what remains. Heatmaps:
    :math:`L_{task}(E)` is :func:`~mmrkd.models.losses.heatmap_mse` and KL
    :func:`~mmrkd.models.losses.heatmap_kl`, each of several stacks learns from E, and the last ones are mixed, as
    released (save its indices, which take other stacks). Segmentation (ours): H are the logits of the decode head,
    :math:`L_{task}(E)` its own loss, KL :func:`~mmrkd.models.losses.class_kl`.

    Gradient contract: flows into all branches, the unit and the trunk. As released E is not detached: the KL term pulls
    from both sides.

    Args:
        num_branches: B, the student included. Defaults to 3.
        split: Where the branches begin, the name of a module (``'layer4'``), see
            :func:`mmrkd.adapters.split.find_split`. Defaults to None: the last stage that halves the resolution. A
            dilated backbone does so early: name its last stage.
        init: What the other branches start from: ``'random'``, or ``'student'``: his backbone and neck, random heads
            (ours, for pretrained backbones). Defaults to ``'random'``.
        w_kd: Weight of the KL term. Defaults to None: 2 for heatmaps, as in the recipe (5 in its code), 1 for logits
            (ours).
        w_ensemble: w_e. Defaults to 1, the recipe's (6 in its code).
        ramp: Epochs after which the KL term has its full weight; 0: at once. Defaults to None: 40 percent of the
            training, as 60 of 150 epochs are.
        detach_target: Whether E is a constant in the KL term (ours; the usual choice). Defaults to False.
        kernels: Of the unit's convolutions. Defaults to (3, 5, 7).
        squeeze: Width inside of the unit. Defaults to 64.
        norm: Of the unit, ``'BN'`` or ``'GN'``. Defaults to ``'BN'``.

    Raises:
        ValueError: An argument is out of range, the student cannot be cut there, or its outputs cannot be mixed.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.OnlineEnsemble', w_kd=5.0))
        >>> method.needs_teacher
        False

        The mixture of three branches, of which the second counts as much as both others:

        >>> import torch
        >>> from mmrkd.models.losses import mixed_maps
        >>> scores = torch.tensor([0.0, 0.6931, 0.0]).view(1, 3, 1)
        >>> maps = torch.tensor([0.2, 0.4, 0.8]).view(1, 3, 1, 1, 1)
        >>> round(mixed_maps(scores, maps).item(), 3)
        0.45
    """

    weights = {'w_ensemble': 'loss_ensemble', 'w_kd': 'loss_kd'}
    needs_teacher = False
    compares_classes = False

    def __init__(
        self,
        num_branches: int = 3,
        split: Optional[str] = None,
        init: Literal['random', 'student'] = 'random',
        w_kd: Optional[float] = None,
        w_ensemble: float = 1.0,
        ramp: Optional[float] = None,
        detach_target: bool = False,
        kernels: Sequence[int] = (3, 5, 7),
        squeeze: int = 64,
        norm: Literal['BN', 'GN'] = 'BN',
    ) -> None:
        super().__init__()
        require_weights('OnlineEnsemble', w_kd=w_kd or 0.0, w_ensemble=w_ensemble, ramp=ramp or 0.0)
        self.num_branches, self.split, self.init = num_branches, split, init
        self.w_kd, self.w_ensemble, self.ramp, self.detach_target = w_kd, w_ensemble, ramp, detach_target
        self.unit_cfg = dict(kernels=kernels, squeeze=squeeze, norm=norm)

    @property
    def needed_hooks(self) -> tuple[str, ...]:
        """What says how far the ramp is."""
        return () if self.ramp == 0 else ('PhaseHook',)

    @property
    def mixes(self) -> bool:
        """Whether the mixture is learnt by any term."""
        return bool(self.w_ensemble or (self.w_kd and not self.detach_target))

    def setup(self, pair: Pair) -> None:
        """Cuts the student, builds the other branches and the unit."""
        adapter = pair.student
        obstacle = adapter.mixing_obstacle
        if obstacle is not None:
            raise ValueError(f'OnlineEnsemble mixes the maps that branches predict, but {obstacle}.')
        self.heatmaps = adapter.output_loss == 'mse'
        self.w_kd = (2.0 if self.heatmaps else 1.0) if self.w_kd is None else self.w_kd
        self.branches = StudentBranches(pair, self.split, self.num_branches, self.init)
        self.student_taps = self.branches.taps
        width, maps = self._trunk_width(adapter), self._num_maps(adapter)
        self.unit = AggregationUnit(width, self.num_branches, maps, **self.unit_cfg)
        if adapter.blend_obstacle is not None:
            self.refused = {'ensemble': adapter.blend_obstacle}

    def _trunk_width(self, adapter: ModelAdapter) -> int:
        trunk = last_map(adapter.dry_run_taps(self.student_taps)[self.student_taps[-1]])
        if not isinstance(trunk, Tensor) or trunk.dim() != 4:
            raise ValueError(
                f'OnlineEnsemble looks at the map below its branches, but {self.student_taps[-1]!r} of '
                f'{type(adapter.model).__name__} gives no map (N, C, H, W). Choose another split.'
            )
        return trunk.shape[1]

    @staticmethod
    def _num_maps(adapter: ModelAdapter) -> int:
        with adapter.evaluating():
            return adapter.logit_maps(adapter.head_outputs(adapter.dry_feats))[-1].shape[1]

    def idle_parameters(self) -> list[torch.nn.Parameter]:
        """Those of the unit, where no term trains it."""
        idle = super().idle_parameters()
        return idle if idle or self.mixes else list(self.unit.parameters())

    @property
    def ramp_now(self) -> float:
        """The factor r; 1 where nothing counts epochs."""
        if self.progress is None:
            return 1.0
        if self.ramp is None:
            return consistency_ramp(self.progress.share, RAMP_SHARE)
        return consistency_ramp(self.progress.epochs, self.ramp)

    def losses(self, student: StudentView, teacher: Optional[TeacherView], samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_branches``, the task losses of the other branches, ``loss_ensemble`` and ``loss_kd``."""
        outputs, tasks = [student.outputs], []
        for adapter, feats in zip(self.branches.adapters, self.branches.extract(student.inputs, student.taps)):
            task, own = adapter.task_loss(feats, student.inputs, samples)
            tasks.append(sum_losses(task))
            outputs.append(own)
        maps = [self.pair.student.logit_maps(own) for own in outputs]
        mixture = self._mixture(student.taps, [own[-1] for own in maps])
        losses = {'loss_branches': sum(tasks)}
        if self.w_ensemble:
            losses['loss_ensemble'] = self.w_ensemble * self._task_of(mixture, samples)
        if self.w_kd:
            target = mixture.detach() if self.detach_target else mixture
            terms = [self._divergence(own, target, samples) for stack in maps for own in stack]
            losses['loss_kd'] = self.w_kd * self.ramp_now * sum(terms)
        return losses

    def _mixture(self, taps: dict[str, Any], maps: Sequence[Tensor]) -> Tensor:
        return mixed_maps(self.unit(last_map(taps[self.student_taps[-1]])), torch.stack(list(maps), dim=1))

    def _task_of(self, mixture: Tensor, samples: Sequence) -> Tensor:
        adapter = self.pair.student
        if self.heatmaps:
            return heatmap_mse(mixture, adapter.targets(samples), adapter.visibility(samples))
        return sum_losses(adapter.loss_of_outputs(mixture, samples))

    def _divergence(self, maps: Tensor, target: Tensor, samples: Sequence) -> Tensor:
        if self.heatmaps:
            return heatmap_kl(maps, target, self.pair.student.visibility(samples))
        return class_kl(maps, target, self.pair.student.sigmoid)

    @torch.no_grad()
    def predicted_mixture(self, inputs: Tensor) -> Tensor:
        """Returns E for images as the student sees them."""
        student = self.pair.student
        with student.tapped(self.student_taps) as taps:
            outputs = [student.head_outputs(student.extract(inputs))]
        for adapter, feats in zip(self.branches.adapters, self.branches.extract(inputs, taps)):
            outputs.append(adapter.head_outputs(feats))
        return self._mixture(taps, [student.logit_maps(own)[-1] for own in outputs])

    def prediction_variants(self) -> list[Variant]:
        """Returns ``branch_2``, ... (plain models of the student's config) and ``ensemble``, their mixture."""
        cfg, count = self.pair.student_cfg, self.num_branches
        others = [CopyVariant(f'branch_{i + 2}', self.branches.branch(i), cfg, self.pair) for i in range(count - 1)]
        return [*others, *([] if 'ensemble' in self.refused else [EnsembleVariant(self, count)])]


class EnsembleVariant(Variant):
    """What the branches say together.

    Args:
        method: Whose branches they are.
        count: Their number.
    """

    def __init__(self, method: OnlineEnsemble, count: int) -> None:
        super().__init__('ensemble')
        self.method = method
        self.parts = ('student', *(f'branch_{index + 2}' for index in range(count - 1)))

    def predict(self, inputs: Tensor, samples: Sequence) -> Sequence:
        """Predicts from the mixture, post-processed by the student's head."""
        mixture = self.method.predicted_mixture(inputs)
        return self.method.pair.student.blend(mixture, mixture, 0.0, samples)
