"""ResidualKD: a student and an assistant that learns what the student misses."""

from collections.abc import Sequence
from typing import Any, Optional, Union

from torch import Tensor, nn

from mmrkd.models.backbones import ResidualPairBackbone
from mmrkd.models.losses import attention_distance, cosine_distance, feature_mse
from mmrkd.models.methods.base import DistillMethod, Pair, Phase
from mmrkd.models.methods.student_alone_variant import StudentAloneVariant
from mmrkd.models.necks import ChannelStandardizer, Projection, ResidualAssistantNeck, linear_part
from mmrkd.models.variants import StudentVariant, Variant
from mmrkd.registry import MODELS
from mmrkd.structures import Features, StudentView, TeacherView, on_student_grid

DISTANCES = {'mse': feature_mse, 'attention': attention_distance, 'cosine': cosine_distance}
SCHEMES = ('end_to_end', 'progressive')
PHASES = (Phase('student', task_weight=0.0), Phase('assistant', task_weight=0.0), Phase('head', distils=False))


@MODELS.register_module()
class ResidualKD(DistillMethod):
    r"""Residual Knowledge Distillation (arXiv 2002.09168).

    The student that is trained and shipped has two parts: S, which mimics the teacher's feature maps, and an assistant
    A, which learns the residual error between them. Either :class:`~mmrkd.models.backbones.ResidualPairBackbone` or
    :class:`~mmrkd.models.necks.ResidualAssistantNeck` must be in its config. With distance d:

    .. math::
        L_S = d(\varphi(F_S), \mathrm{sg} F_T) \qquad L_A = d(F_A, \mathrm{sg}(F_T - \varphi(F_S)))

        L = L_{task}(\mathrm{head}(\varphi(F_S) + F_A)) + w_S L_S + w_A L_A

    No code of the authors is public: this is a reconstruction. Ours: where the shipped model's F is not as wide as the
    teacher's, or F_T is standardised, one linear layer P lifts :math:`\varphi(F_S)` and F_A to it, for the training
    alone. It is learnt as part of :math:`\varphi`, by L_S. F_A goes through it without its bias, so that the two lifted
    parts still add up to the lifted sum. Ours too: the standardisation, the default weights, what each phase trains
    exactly.

    Gradient contract: the teacher is detached. L_S trains S, phi and P, and not A. L_A trains A (psi included) alone:
    its target, S and the weights of P are detached. The task loss trains everything, through the sum; S does not get
    its gradient through a :class:`~mmrkd.models.necks.ResidualAssistantNeck`, which reads detached features.

    ``scheme='progressive'`` splits the training into three phases, which :class:`mmrkd.engine.hooks.PhaseHook` enters
    at the epochs ``phase_epochs``; what a phase freezes keeps weights and buffers, and its layers run as in evaluation:

    1. ``student``: S, phi and P learn by L_S alone. A and all behind the sum are frozen.
    2. ``assistant``: A and psi learn by L_A alone. All else is frozen.
    3. ``head``: what is behind the sum (a neck, the head) learns by the task loss; S and A are frozen, or with
       ``finetune`` learn by it too.

    What other methods in the list train is never frozen by a phase.

    Variants: ``integrated`` is S + A, the student itself under the name that tables use. ``student_alone`` is S without
    A; it is not called ``student``, because that is the model that checkpoints hold and that is exported.

    Args:
        w_student: w_S. Defaults to 1.
        w_assistant: w_A. Defaults to 1.
        distance: ``'mse'``, ``'attention'`` (of maps; wants weights of 500 to 1000) or ``'cosine'``.
        stages: Which of the sums are compared: ``'last'``, ``'all'``, or a list of stages as the pair names them, by
            its ``out_indices``. ``None`` takes the last stage of a classifier's pair; everywhere else, and in the
            progressive scheme, all.
        scheme: ``'end_to_end'`` or ``'progressive'``.
        phase_epochs: For ``'progressive'``, the epochs after which the second and the third phase begin.
        finetune: Whether S and A go on learning in the third phase. Defaults to False.
        standardize: Whether errors are measured in units of the teacher's per-channel standard deviation. Only with
            ``distance='mse'``, where it is the default.
        teacher_module: Module of the teacher whose outputs are F_T. Defaults to the one of the same name as the
            student's: ``'backbone'`` or ``'neck'``.

    Raises:
        ValueError: An argument is out of range, the student has no assistant, or a stage has no counterpart.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.ResidualKD', scheme='progressive', phase_epochs=(10, 20)))
        >>> [phase.name for phase in method.phases], method.needed_hooks
        (['student', 'assistant', 'head'], ('PhaseHook',))
    """

    weights = {'w_student': 'loss_student', 'w_assistant': 'loss_assistant'}
    compares_classes = False

    def __init__(
        self,
        w_student: float = 1.0,
        w_assistant: float = 1.0,
        distance: str = 'mse',
        stages: Optional[Union[str, Sequence[int]]] = None,
        scheme: str = 'end_to_end',
        phase_epochs: Optional[Sequence[int]] = None,
        finetune: bool = False,
        standardize: Optional[bool] = None,
        teacher_module: Optional[str] = None,
    ) -> None:
        super().__init__()
        for name, value, allowed in (('distance', distance, tuple(DISTANCES)), ('scheme', scheme, SCHEMES)):
            if value not in allowed:
                raise ValueError(f'{name} must be one of {allowed}, found {value!r}')
        if standardize and distance != 'mse':
            raise ValueError(f'standardize is for distance="mse": {distance!r} has no unit')
        self.w_student, self.w_assistant, self.distance = w_student, w_assistant, distance
        self.stages, self.scheme, self.finetune, self.standardize = stages, scheme, finetune, standardize
        self.teacher_module = teacher_module
        self.phase_epochs = _checked_epochs(phase_epochs, scheme)
        self.phases = PHASES if self.progressive else ()
        if self.progressive and not (w_student and w_assistant):
            raise ValueError('the progressive scheme trains S by L_S and A by L_A alone: both weights must not be 0')

    @property
    def needed_hooks(self) -> tuple[str, ...]:
        """Without it no phase begins."""
        return ('PhaseHook',) if self.progressive else ()

    @property
    def progressive(self) -> bool:
        """Whether training has phases."""
        return self.scheme == 'progressive'

    def setup(self, pair: Pair) -> None:
        """Finds the sums in the student and their counterparts in the teacher, and builds P where widths differ."""
        self.path = _find_assisted(pair.student.model)
        if not self.assisted.assisted:
            self._refuse_assistant()
        stages = self._chosen_stages()
        source = self.teacher_module or self.path.split('.')[0]
        self.student_names = [f'{self.path}.sums.{stage}.student' for stage in stages]
        self.assistant_names = [f'{self.path}.sums.{stage}.assistant' for stage in stages if self.w_assistant]
        self.student_taps, self.teacher_taps = (*self.student_names, *self.assistant_names), (source,)
        own = pair.student.dry_run_taps(self.student_names)
        own = [own[name] for name in self.student_names]
        if any(feat.dim() == 4 for feat in own):
            pair.require_same_pixels('ResidualKD')
        others = _as_tuple(pair.teacher.adapter.dry_run_taps([source])[source])
        self.counterparts = _match_strides(pair, dict(zip(stages, own)), others, source)
        others = [others[index] for index in self.counterparts]
        standardize = self.distance == 'mse' if self.standardize is None else self.standardize
        self.standardizer = ChannelStandardizer([f.shape[1] for f in others]) if standardize else None
        widths = ([f.shape[1] for f in feats] for feats in (own, others))
        # Where F_T is standardised P changes the unit, too.
        self.projection = Projection(*widths, vectors=own[0].dim() == 2, per_level=True, always=standardize)
        self.projection.requires_grad_(self.w_student != 0)  # nothing else trains it, and DDP waits for each gradient

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_student`` and ``loss_assistant``, weighted; one of them in the phase that is its own."""
        if self.progressive and self.phase is None:
            raise ValueError(
                'the progressive scheme needs mmrkd.PhaseHook, which enters its phases: train with tools/train.py, or '
                'call mmrkd.engine.prepare_config on the config.'
            )
        estimates, increments, targets = self._features(student, teacher)
        residuals = [t.float() - e.detach().float() for t, e in zip(targets, estimates)]
        terms = {
            'student': (self.w_student, estimates, targets),
            'assistant': (self.w_assistant, increments, residuals),
        }
        wanted = [self.phase] if self.progressive else [name for name, (weight, *_) in terms.items() if weight]
        return {f'loss_{n}': terms[n][0] * DISTANCES[self.distance](*terms[n][1:]) for n in wanted}

    def prediction_variants(self) -> list[Variant]:
        """Returns ``integrated``, S + A, and ``student_alone``, S without A, of a student with an assistant."""
        if not self.assisted.assisted:
            return []
        integrated = StudentVariant('integrated', self.pair.student, self.pair.student_cfg)
        return [integrated, StudentAloneVariant(self.pair.student, self.pair.student_cfg, self.path)]

    @property
    def assisted(self) -> nn.Module:
        """The module of the student that adds phi(F_S) and F_A."""
        return self.pair.student.model.get_submodule(self.path)

    def frozen_modules(self) -> list[nn.Module]:
        """Returns what the present phase freezes of the student, and P outside the first one."""
        model, assisted = self.pair.student.model, self.assisted
        before_sum = [assisted] if self.path.startswith('backbone') else [model.backbone, model.neck]
        part_of = dict.fromkeys(model.modules(), 'head')
        part_of.update(dict.fromkeys((m for root in before_sum for m in root.modules()), 'student'))
        part_of.update(dict.fromkeys((m for root in assisted.assistant_modules() for m in root.modules()), 'assistant'))
        everything = self.phase == 'head' and self.finetune
        learning = [phase.name for phase in PHASES] if everything else [self.phase]
        frozen = [module for module, part in part_of.items() if part not in learning]
        return frozen if self.phase == 'student' else [*frozen, *self.projection.modules()]

    def _features(self, student: StudentView, teacher: TeacherView) -> tuple[list[Tensor], list[Tensor], Features]:
        """Returns P(phi(F_S)), P(F_A) and F_T (standardised, if it is) of each compared stage."""
        estimates = list(self.projection([student.taps[name] for name in self.student_names]))
        layers = [self.projection.layers[i] for i in self.projection.index]
        increments = [linear_part(layer, student.taps[name]) for layer, name in zip(layers, self.assistant_names)]
        feats = _as_tuple(teacher.taps[self.teacher_taps[0]])
        targets = [on_student_grid(feats[i], e) for i, e in zip(self.counterparts, estimates)]
        if self.standardizer is not None:
            self.standardizer.update(targets)
            targets = self.standardizer.normalize(targets)
        return estimates, increments, targets

    def _refuse_assistant(self) -> None:
        if self.w_assistant:
            raise ValueError(
                f'{self.path!r} of the student has no assistant, so L_A has nothing to train. Give it one, or set '
                'w_assistant=0: then the student mimics the teacher alone.'
            )
        self.refused = dict.fromkeys(('integrated', 'student_alone'), 'The student has no assistant.')

    def _chosen_stages(self) -> list[str]:
        names = list(self.assisted.sums)
        stages = self.stages
        if stages is None:
            last = self.pair.match.vectors and self.path.startswith('backbone') and not self.progressive
            stages = 'last' if last else 'all'
        chosen = names if stages == 'all' else names[-1:] if stages == 'last' else [str(stage) for stage in stages]
        if not chosen or not set(chosen) <= set(names):
            raise ValueError(f"stages must be 'last', 'all' or some of {names}, found {self.stages!r}")
        if self.progressive and set(chosen) != set(names):
            raise ValueError(
                f'the progressive scheme trains S and A by L_S and L_A alone, so each of the stages {names} that the '
                f"model reads must be compared, found {chosen}. Use stages='all'."
            )
        return chosen


def _find_assisted(model: nn.Module) -> str:
    kinds = (ResidualPairBackbone, ResidualAssistantNeck)
    found = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    if len(found) != 1:
        raise ValueError(
            f'ResidualKD needs a student with one assistant, found {found or "none"}: its config must have one '
            'mmrkd.ResidualPairBackbone (tools/separate_model.py makes it out of a plain config) or one '
            'mmrkd.ResidualAssistantNeck.'
        )
    return found[0]


def _checked_epochs(phase_epochs: Optional[Sequence[int]], scheme: str) -> tuple[int, ...]:
    epochs = tuple(phase_epochs or ())
    rising = len(epochs) == 2 and 0 < epochs[0] < epochs[1]
    if epochs and scheme != 'progressive' or scheme == 'progressive' and not rising:
        raise ValueError(
            'phase_epochs: expected two rising epochs > 0, after which the phases `assistant` and `head` begin, for '
            f"scheme='progressive', and nothing otherwise; found {phase_epochs!r} for {scheme!r}"
        )
    return epochs


def _as_tuple(feats: Any) -> tuple[Tensor, ...]:
    return (feats,) if isinstance(feats, Tensor) else tuple(feats)


def _match_strides(pair: Pair, own: dict[str, Tensor], others: Sequence[Tensor], source: str) -> list[int]:
    """Returns for each stage the index of the teacher's feature of the same stride; of vectors, the vector's.

    Dilated backbones have several of one stride: these are paired from the last one on.
    """
    indices: dict[Any, list[int]] = {}
    for index, feat in enumerate(others):
        indices.setdefault(pair.teacher.adapter.pixels_per_cell(feat), []).append(index)
    strides = {stage: pair.student.pixels_per_cell(feat) for stage, feat in own.items()}
    missing = [stage for stage, stride in strides.items() if stride not in indices]
    if missing:
        raise ValueError(
            f'the stages {missing} of the student have no counterpart of the same stride in the teacher: for blank '
            f'images they are {[tuple(own[stage].shape) for stage in missing]}, and {source!r} of the teacher gives '
            f'{[tuple(feat.shape) for feat in others]}. Compare other stages, or give the teacher more out_indices.'
        )
    chosen = []
    for stride in reversed(strides.values()):
        chosen.append(indices[stride].pop() if len(indices[stride]) > 1 else indices[stride][0])
    return chosen[::-1]
