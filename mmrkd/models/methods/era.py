"""ERA: Expandable Residual Approximation."""

from collections.abc import Sequence
from typing import Optional, Union

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmrkd.adapters import ModelAdapter
from mmrkd.models.heads import TeacherHead, logit_divergence
from mmrkd.models.losses import explained_variance, feature_mse
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.era_settings import branch_scales, check_branches, soft_targets, with_defaults
from mmrkd.models.methods.era_variants import BlendVariant, IntegratedVariant, refused_variants
from mmrkd.models.methods.step_counter import StepCounter
from mmrkd.models.necks import MultiBranchResidualNeck, MultiWidthResidualNeck
from mmrkd.models.variants import Variant
from mmrkd.registry import MODELS
from mmrkd.structures import Features, StudentView, TeacherView


@MODELS.register_module()
class ERA(DistillMethod):
    r"""Expandable Residual Approximation (arXiv 2508.16050).

    The gap between teacher and student features is approximated in N steps by
    :class:`~mmrkd.models.necks.MultiBranchResidualNeck`, and the teacher's frozen head H_t
    (:class:`~mmrkd.models.heads.TeacherHead`) judges the partial sums. With :math:`r_1 = f_t - h_0`,
    :math:`r_{i+1} = r_i - D_i` and :math:`h_i = h_0 + D_1 + ... + D_i`:

    .. math::
        L_{student} &= w_{task} L_{task}(z_s) + w_{kd} KL_\tau(z_t \| z_s) + w_{feat} MSE(h_0, sg f_t)
                       + w_{twi} L_{task}(H_t(h_0)) \\
        L_{residual} &= \frac{1}{N} \sum_i s_i [ w_{res} MSE(D_i, sg\, r_i) + w_{twi} L_{task}(H_t(h_i)) ]

    For a detector, features are the levels of the neck (MSE averaged over levels), :math:`L_{task}` is the detector's
    whole loss, and the KL term acts on the dense classification logits, with a term for the boxes beside it
    (:class:`~mmrkd.models.heads.OutputMimicry`). This mapping is ours: the authors' code has no detection.

    Gradient contract: the teacher and every :math:`r_i` are detached. :math:`f_s` and :math:`h_0` are not, so
    :math:`L_{residual}` trains the student too, unless ``detach_student``. H_t is frozen and passes gradients on.

    Defaults marked * depend on the features, pooled vectors or maps, and are those that gained most where they were
    tried (ours): see ``CLASSIFICATION_DEFAULTS`` and ``DETECTION_DEFAULTS`` in ``era_settings``; beside the loss of
    heatmaps those of ``HEATMAP_DEFAULTS``, in its scale and not tried. The authors' recipe
    for ImageNet is ``w_kd=2, tau=1, w_feat=5, w_res=1, w_twi=1, twi_kd=False``.

    Args:
        num_branches: N*.
        start_branches: How many of them the training starts with; the others return 0 until
            :class:`mmrkd.engine.hooks.ExpandHook` lets them join in. N in the formula counts those that have. Defaults
            to all.
        num_blocks: B, blocks in a branch. Defaults to 2.
        kernel_size: Kernel of the branches on maps, or one for each block; ignored for vectors. Defaults to 3.
        wiring: What each branch reads, see the neck. Defaults to ``'parallel'``.
        w_task: Weight of the student's own losses, and factor of the default of ``w_twi``. Defaults to 1.
        w_kd: Weight of the KL term*. Where the two heads do not line up the default is 0, and a weight is refused.
        tau: Temperature of the KL term; ``None`` is 4 for classifiers and 1 for detectors.
        w_box: Weight of a detector's boxes, relative to ``w_kd``; ``None`` is 20 where they are compared by their L1
            distance (a mean over four sides: with ``w_kd=0.2`` the sum of the sides has a weight of 1), 1 where they
            are distributions, and 0 where the head has none to compare.
        tau_box: Temperature of the box distributions of GFL-type heads. Defaults to 10.
        w_feat: Weight of the feature term*.
        w_res: Weight of the residual terms*.
        w_twi: Weight of the TWI terms*; the default is multiplied by ``w_task``.
        branch_weights: s_1 .. s_N > 0*. For vectors 1, 1/2, 1/4, ..., for maps 1.
        twi_on: Which partial sums the teacher's head judges*: ``'all'`` (h_0 .. h_N), ``'ends'`` (h_0 and h_N),
            ``'last'`` (h_N) or ``'none'``.
        twi_every: The sums are judged in every so many-th step, with as many times the weight: the same gradient on
            average, for a fraction of the teacher's passes. Defaults to 1 (ours).
        levels: Which of the matched levels P, MBRNet and TWI work on, 0 the finest; on the others the teacher's head is
            given the teacher's own features. Then there is no variant ``integrated``. Defaults to None: all (ours).
        twi_kd: Whether a TWI term is the mean of ``w_twi`` times the task loss and ``w_kd`` times KL(z_t || H_t(h_i)).
            Only steps that ``twi_on`` and ``w_twi`` judge have one*.
        detach_student: Whether L_residual trains the branches alone. Defaults to False.
        standardize: Whether features are compared in units of the teacher's per-channel standard deviation*.
        alpha: Share of the teacher's head in the variant ``blend``, in (0, 1). Defaults to 0.5.
        neck: More arguments of the neck (``act``, ``norm``, ``shared_blocks``, ...).

    Raises:
        ValueError: An argument is out of range, or student and teacher do not fit.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.ERA', num_branches=3, w_feat=0.5, twi_on='ends'))
        >>> sorted(method.weights)
        ['w_feat', 'w_kd', 'w_res', 'w_twi']

        The branches add up: what they explain of a residual is what is measured while it trains.

        >>> import torch
        >>> from mmrkd.models.losses import explained_variance
        >>> residual = torch.rand(2, 3, 4, 4)
        >>> steps = [0.5 * residual, 0.25 * residual]
        >>> explained_variance([sum(steps)], [residual]) > explained_variance([steps[0]], [residual])
        True
    """

    weights = {'w_kd': 'loss_kd*', 'w_feat': 'loss_feat', 'w_res': 'loss_res_*', 'w_twi': 'loss_twi_*'}

    def __init__(
        self,
        num_branches: Optional[int] = None,
        num_blocks: int = 2,
        kernel_size: Union[int, Sequence[int]] = 3,
        wiring: str = 'parallel',
        w_task: float = 1.0,
        w_kd: Optional[float] = None,
        tau: Optional[float] = None,
        w_box: Optional[float] = None,
        tau_box: float = 10.0,
        w_feat: Optional[float] = None,
        w_res: Optional[float] = None,
        w_twi: Optional[float] = None,
        branch_weights: Optional[Sequence[float]] = None,
        twi_on: Optional[str] = None,
        twi_kd: Optional[bool] = None,
        detach_student: bool = False,
        standardize: Optional[bool] = None,
        alpha: float = 0.5,
        neck: Optional[dict] = None,
        start_branches: Optional[int] = None,
        twi_every: int = 1,
        levels: Optional[Sequence[int]] = None,
    ) -> None:
        super().__init__()
        if twi_every < 1:
            raise ValueError(f'twi_every must be at least 1, found {twi_every}')
        self.twi_every, self.levels, self.judging = twi_every, levels, True
        self.steps = StepCounter() if twi_every > 1 else None
        if tau is not None and tau <= 0:
            raise ValueError(f'tau must be > 0, found {tau}')
        if num_branches is not None:
            check_branches(num_branches, start_branches, branch_weights)
        clashes = {'num_branches', 'num_blocks', 'kernel_size', 'wiring', 'standardize'} & set(neck or {})
        if clashes:
            raise ValueError(f'{sorted(clashes)} are arguments of ERA itself: give them there, not in neck')
        if twi_on not in (None, 'all', 'ends', 'last', 'none'):
            raise ValueError(f"twi_on must be 'all', 'ends', 'last' or 'none', found {twi_on!r}")
        if not 0 < alpha < 1:
            raise ValueError(f'alpha must be in (0, 1), found {alpha}: 0 is the variant student, 1 is integrated')
        self.task_weight = w_task
        self.settings = dict(
            num_branches=num_branches,
            w_kd=w_kd,
            w_feat=w_feat,
            w_res=w_res,
            w_twi=w_twi,
            twi_on=twi_on,
            twi_kd=twi_kd,
            standardize=standardize,
        )
        self.start_branches, self.branch_weights = start_branches, branch_weights
        self.tau, self.w_box, self.tau_box = tau, w_box, tau_box
        self.detach_student, self.alpha = detach_student, alpha
        self.neck_cfg = dict(num_blocks=num_blocks, kernel_size=kernel_size, wiring=wiring, **(neck or {}))

    def setup(self, pair: Pair) -> None:
        """Builds P, MBRNet (one for each pair of widths) and the teacher's head for the matched levels."""
        match = self.match = pair.match.restricted(self.levels)
        self.places = [pair.match.pairs.index(matched) for matched in match.pairs]
        heatmaps = pair.student.output_loss == 'mse'
        for name, value in with_defaults(self.settings, match.vectors, self.task_weight, heatmaps).items():
            setattr(self, name, value)
        check_branches(self.num_branches, self.start_branches, self.branch_weights)
        self.start_branches = self.active_branches = self.start_branches or self.num_branches
        self.branch_weights = branch_scales(self.num_branches, self.branch_weights, match.vectors)
        self._check_heads(pair)
        self.mimicry = soft_targets(pair.student, self.w_kd, self.tau, self.w_box, self.tau_box)
        if match.vectors:
            self.neck_cfg['kernel_size'] = None
        self.neck_cfg.update(
            num_branches=self.num_branches,
            in_channels=match.student_channels,
            out_channels=match.teacher_channels,
            num_levels=len(match.pairs),
            standardize=self.standardize,
        )
        widths = set(zip(match.student_channels, match.teacher_channels))
        self.neck = (MultiBranchResidualNeck if len(widths) == 1 else MultiWidthResidualNeck)(**self.neck_cfg)
        self.teacher_head = TeacherHead(pair.teacher, match)
        self._freeze_unused()

    def init_weights(self) -> None:
        """Initialises the neck; branches that join in later begin with an output of 0."""
        super().init_weights()
        if self.start_branches < self.num_branches:
            self.neck.silence(self.start_branches)

    @property
    def needed_hooks(self) -> tuple[str, ...]:
        """Branches that wait would wait for ever."""
        return ('ExpandHook',) if self.start_branches < self.num_branches else ()

    @property
    def compares_classes(self) -> bool:
        """Whether the teacher's head judges, or its outputs are compared."""
        return bool(self.w_kd or self.judged_steps)

    def idle_parameters(self) -> list[torch.nn.Parameter]:
        """Returns those of branches that have not joined in, or all of them while the method is off."""
        waiting = self.neck.parameters_from(self.active_branches)
        if not self.judging:
            waiting += self._reached_by_judgement_alone()
        return super().idle_parameters() or [p for p in dict.fromkeys(waiting) if p.requires_grad]

    def _reached_by_judgement_alone(self) -> list[torch.nn.Parameter]:
        own = set(self.neck.projection.parameters())
        branches = [] if self.w_res else [p for p in self.neck.parameters() if p not in own]
        return branches + ([] if self.w_feat else list(own))

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_kd``, ``loss_kd_box``, ``loss_feat``, ``loss_res_i`` and ``loss_twi_i``, weighted.

        ``loss_kd_box`` is that of detectors; i runs over 1 .. N, and from 0 for the TWI terms.
        """
        losses: dict[str, Tensor] = {}
        if self.w_kd:
            losses.update(self.mimicry('loss_kd', self.w_kd, student.outputs, teacher.outputs, samples))
        if not (self.w_feat or self.w_res or self.judged_steps):
            return losses
        if self.neck.standardizer is not None:
            self.neck.standardizer.update(self._chosen(teacher))
        targets = self._targets(teacher)
        initial, increments = self.neck.steps(self._chosen(student), self.detach_student, self.active_branches)
        if self.w_feat:
            losses['loss_feat'] = self.w_feat * feature_mse(initial, targets)
        if self.w_res:
            losses.update(self._residual_losses(initial, increments, targets))
        self.judging = self._has_its_turn()
        for step in self.judged_steps:
            term = initial[0].new_zeros(())  # so that the mean of the log is that of the weights
            if self.judging:
                estimate = self._partial_sum(initial, increments, step)
                term = self._step_weight(step) * self.twi_every * self._judge(estimate, teacher, samples)
            losses[f'loss_twi_{step}'] = term
        return losses

    def _has_its_turn(self) -> bool:
        """Whether the sums are judged in this step: the first one and every ``twi_every``-th after it."""
        if self.steps is None:
            return True
        self.steps.count += 1
        return (self.steps.count - 1) % self.twi_every == 0

    def prediction_variants(self) -> list[Variant]:
        """Returns ``integrated``, H_t(h_N), and ``blend``, (1 - alpha) z_s + alpha H_t(h_N), as far as can be."""
        self.refused = refused_variants(self.pair, self.match)
        variants = [IntegratedVariant(self.pair, self.neck, self.neck_cfg, self.teacher_head)]
        variants.append(BlendVariant(self.pair, self.neck, self.teacher_head, self.alpha))
        return [variant for variant in variants if variant.name not in self.refused]

    def measurements(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, float]:
        """Returns how much of r_1 the branches explain together, where they are trained to."""
        if not self.w_res:
            return {}
        initial, increments = self.neck.steps(self._chosen(student), num_branches=self.active_branches)
        residuals = [t.float() - h.float() for t, h in zip(self._targets(teacher), initial)]
        return {'residual_explained': explained_variance([sum(parts) for parts in zip(*increments)], residuals)}

    def pictures(self, student: StudentView, teacher: TeacherView) -> dict[str, Features]:
        """Returns f_t, h_0, r_1, each D_i and what they leave of r_1, in the unit in which they are compared."""
        initial, increments = self.neck.steps(self._chosen(student), num_branches=self.active_branches)
        targets = self._targets(teacher)
        left = [t.float() - h.float() for t, h in zip(targets, initial)]
        shown = {'teacher': targets, 'student': initial, 'residual': tuple(left)}
        for index, increment in enumerate(increments, start=1):
            shown[f'D_{index}'] = increment
            left = [r - d.float() for r, d in zip(left, increment)]
        return {**shown, 'left over': tuple(left)}

    def _targets(self, teacher: TeacherView) -> Features:
        standardizer, feats = self.neck.standardizer, self._chosen(teacher)
        return feats if standardizer is None else standardizer.normalize(feats)

    def _chosen(self, view: Union[StudentView, TeacherView]) -> Features:
        return tuple(view.feats[place] for place in self.places)

    def _residual_losses(self, initial: Features, increments: list[Features], targets: Features) -> dict[str, Tensor]:
        losses = {}
        residuals = [t.float() - h.detach().float() for t, h in zip(targets, initial)]
        for step, increment in enumerate(increments, start=1):
            losses[f'loss_res_{step}'] = self._step_weight(step) * self.w_res * feature_mse(increment, residuals)
            residuals = [r - d.detach().float() for r, d in zip(residuals, increment)]
        return losses

    def _partial_sum(self, initial: Features, increments: list[Features], step: int) -> Features:
        """Returns h_step on the teacher's scale; h_0 itself always trains the student."""
        if self.detach_student and step > 0:
            initial = tuple(h.detach() for h in initial)
        return self.neck.to_teacher_scale([sum(parts, h) for h, *parts in zip(initial, *increments[:step])])

    def _judge(self, estimate: Features, teacher: TeacherView, samples: Sequence) -> Tensor:
        task, outputs = self.teacher_head.loss(estimate, teacher, samples)
        if not self.twi_kd:
            return self.w_twi * task
        tau = self.mimicry.temperature
        divergence = logit_divergence(self.teacher_adapter, outputs, teacher.outputs, tau, samples=samples)
        return (self.w_twi * task + self.w_kd * divergence) / 2

    def _step_weight(self, step: int) -> float:
        """s_i / N; the term on h_0 is not scaled."""
        return 1.0 if step == 0 else self.branch_weights[step - 1] / self.active_branches

    @property
    def teacher_adapter(self) -> ModelAdapter:
        """Adapter of the teacher."""
        return self.teacher_head.teacher.adapter

    @property
    def judged_steps(self) -> tuple[int, ...]:
        """Indices i of the partial sums h_i that the teacher's head judges."""
        last = self.active_branches
        steps = {'all': tuple(range(last + 1)), 'ends': (0, last), 'last': (last,), 'none': ()}
        return steps[self.twi_on] if self.w_twi else ()

    def _check_heads(self, pair: Pair) -> None:
        if self.judged_steps or self.w_kd:
            pair.require_same_classes('ERA with TWI or a KL term')
            if not pair.match.vectors:  # the teacher's head would be told boxes in the student's pixels
                pair.require_same_pixels('ERA with TWI or a KL term')
        if self.judged_steps:
            pair.require_same_targets('ERA with TWI')
        if self.settings['w_kd']:  # asked for, and not the default
            pair.require_same_layout('the KL term of ERA (w_kd)')
        if pair.layout_gap is not None:
            if self.w_kd:
                print_log(f'ERA: the KL term is off, the two heads do not line up: {pair.layout_gap}', 'current')
            self.w_kd, self.twi_kd = 0.0, False

    def _freeze_unused(self) -> None:
        """Parameters that no term reaches would stop DDP, which waits for the gradient of each."""
        steps = self.judged_steps
        self.neck.requires_grad_(bool(self.w_res or any(step > 0 for step in steps)))
        self.neck.projection.requires_grad_(
            bool(self.w_feat or any(step == 0 or not self.detach_student for step in steps))
        )
