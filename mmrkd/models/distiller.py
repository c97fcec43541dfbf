"""The distiller: one student, its teachers, and methods by their names."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Callable, Optional, Union

import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor
from torch.nn import Parameter

from mmrkd.adapters import ModelAdapter, build_adapter
from mmrkd.models.attendance import require_hooks
from mmrkd.models.balance import build_balance
from mmrkd.models.building import build_teachers, require_one_task_weight, require_own_names
from mmrkd.models.inheritance import check_parts, inherit_weights
from mmrkd.models.loss_guard import LossGuard
from mmrkd.models.methods import DEFAULT, DistillMethod, MethodDict
from mmrkd.models.pair import Pair
from mmrkd.models.state_names import plain_name, rename_on_load, rename_on_save
from mmrkd.models.step import Step
from mmrkd.models.teacher import FrozenTeacher, load_model_config
from mmrkd.models.variants import named_variants
from mmrkd.models.views_preprocessor import ViewsPreprocessor, require_unmixed
from mmrkd.registry import MODELS
from mmrkd.structures import LevelMatch


@contextmanager
def isolated_rng() -> Iterator[None]:
    """Leaves torch's random state as it was: building the distillation must not change how the student starts."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield


@MODELS.register_module()
class Distiller(BaseModel):
    """Wraps an untouched mmdet, mmpretrain or mmseg model and trains it with one teacher, several, or none.

    .. code:: text

        images ── student's preprocessor ─┬─ student: features ── own head ── task losses ──────────────┐
                                          │              └────── methods ── distillation losses ────────┤ total
                                          └─ teacher's view of the same pixels: features (, outputs) ───┘

    The student's features are computed once and handed to its own head. A teacher computes features and, only if a
    method asks, outputs; never losses of its own. If no method is active (all weights 0, or ``methods=[]``) no teacher
    is run and training is the plain one, bit for bit. Nor is one run where no active method listens to it.

    ``state_dict()`` holds the student under its plain names (no prefix) and the methods under ``methods.<name>.``; no
    teacher is in it. :class:`mmrkd.engine.hooks.SplitCheckpointHook` moves the methods out of
    ``checkpoint['state_dict']``, so that a saved checkpoint is a plain one.

    Args:
        student: Model config, see :func:`mmrkd.models.teacher.load_model_config`.
        teacher: ``dict(cfg=..., ckpt=...)``, arguments of :class:`FrozenTeacher`. Short for
            ``teachers=dict(default=...)``; ``None`` for methods that need none.
        methods: Configs of :class:`DistillMethod`; each may name itself and its teacher, see there.
        variant: What ``mode='predict'`` predicts as: ``student``, ``teacher`` or a variant of a method
            (``integrated``, ``blend``). Defaults to ``'student'``.
        data_preprocessor: The student's, where its config has none of its own. A runner hands over the one that
            mmpretrain's configs keep beside the model.
        on_nonfinite: What a loss term that is NaN or infinite does: ``'stop'``, ``'skip'`` or ``'ignore'``, see
            :class:`LossGuard`.
        init_student: Parts that start from the (default) teacher's weights where name and shape agree, such as
            ``'neck,head'``, see :func:`mmrkd.models.inheritance.inherit_weights`. Defaults to none.
        resize: ``'nearest'``, ``'bilinear'`` or ``'area'`` allows a teacher's maps to be interpolated to the grid of
            the student where the two differ, and levels to be matched by the nearest stride where none is common.
            Defaults to None: nothing is resized.
        teachers: Name -> teacher, beside ``teacher``.
        at: Where the distillable features of student and teachers lie: ``'backbone'``, what backbone and neck give,
            or, of segmentors, ``'penultimate'``: what the last convolution of the decode head reads.
        backbone: Not read. Functions that look for ``cfg.model.backbone`` (``mmdet.apis.init_detector``) find it in the
            configs that a run writes into its work dir.
        view_names: Names of the pipeline's views of an image in their order, for methods that read several
            (:attr:`DistillMethod.views`). The student's own losses are those of the first.

    Raises:
        ValueError: Student, teachers and methods do not fit; raised while building, before any iteration.
    """

    def __init__(
        self,
        student: Union[str, dict],
        teacher: Optional[Union[dict, FrozenTeacher]] = None,
        methods: Sequence[Union[dict, DistillMethod]] = (),
        variant: str = 'student',
        data_preprocessor: Optional[dict] = None,
        on_nonfinite: str = 'stop',
        init_student: Union[str, Sequence[str]] = (),
        resize: Optional[str] = None,
        teachers: Optional[Mapping[str, Union[dict, FrozenTeacher]]] = None,
        view_names: Sequence[str] = ('weak', 'strong'),
        at: str = 'backbone',
        backbone: Optional[dict] = None,
    ) -> None:
        cfg = load_model_config(student)
        if data_preprocessor is not None:
            cfg.setdefault('data_preprocessor', data_preprocessor)
        plain = deepcopy(cfg)  # some models write into their config while they are built
        student = MODELS.build(cfg)
        super().__init__(data_preprocessor=student.data_preprocessor)
        self.student, self.student_cfg = student, plain
        require_own_names(student)
        self.adapter: ModelAdapter = build_adapter(student, at)
        check_parts(student, init_student)
        self.init_student, self.inherited = init_student, ''
        self.view_names = tuple(view_names)
        with isolated_rng():
            self.teachers = build_teachers(teacher, teachers or {}, at)
            self.methods = MethodDict(methods, self.teachers)
            self._wire(resize)
        if any(method.views for method in self.methods.values()):
            self.data_preprocessor = ViewsPreprocessor(student.data_preprocessor)
        self._count_views()
        self.guard = LossGuard(on_nonfinite)
        self.attending: frozenset[str] = frozenset()
        self.set_variant(variant)
        self._register_state_dict_hook(rename_on_save)
        self._register_load_state_dict_pre_hook(rename_on_load)
        self._built = True

    def __getattr__(self, name: str) -> Any:
        """Stands in for the student: its parts, parameters and methods are found where hooks of stock configs look."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            student = self.__dict__.get('_modules', {}).get('student')
            if student is None or name.startswith('__'):
                raise
            return getattr(student, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """What a hook writes to an attribute of the student (a loss, a factor) is written there."""
        if self.__dict__.get('_built') and not self._has_own(name) and hasattr(self.student, name):
            setattr(self.student, name, value)
        else:
            super().__setattr__(name, value)

    def _has_own(self, name: str) -> bool:
        parts = (self.__dict__, self._modules, self._parameters, self._buffers)
        return any(name in part for part in parts) or hasattr(type(self), name)

    def named_parameters(self, prefix: str = '', *args: Any, **kwargs: Any) -> Iterator[tuple[str, Parameter]]:
        """Yields the student's parameters under their plain names: constructors of optimisers go by how names begin."""
        lead = f'{prefix}.' * bool(prefix)
        for name, parameter in super().named_parameters(prefix, *args, **kwargs):
            yield lead + plain_name(name[len(lead) :]), parameter

    @property
    def get_layer_depth(self) -> Callable[[str], tuple[int, int]]:
        """The student's, by which mmpretrain's layer-wise decay of the learning rate goes, if it has one."""
        own = self.student.get_layer_depth
        return lambda name: own(plain_name(name))

    @property
    def teacher(self) -> Optional[FrozenTeacher]:
        """The default teacher, or the only one; ``None`` without."""
        return self.teachers.get(DEFAULT, next(iter(self.teachers.values()), None))

    @property
    def pair(self) -> Pair:
        """Student and default teacher; the student alone without one."""
        return self.pairs.get(DEFAULT, next(iter(self.pairs.values())))

    @property
    def running(self) -> list[DistillMethod]:
        """The methods that are run in this step.

        By name: in floating point a sum depends on its order, and the order of the list is to mean nothing.
        """
        return [method for _, method in sorted(self.methods.items()) if method.active and method.factor]

    @property
    def match(self) -> Optional[LevelMatch]:
        """Levels matched with the default teacher."""
        return self.pair.match

    def _wire(self, resize: Optional[str]) -> None:
        """Matches levels with each teacher on a dry run and lets every method build what it trains."""
        args = (resize, self.student_cfg)
        self.pairs: dict[Optional[str], Pair] = {
            name: Pair.of(self.adapter, teacher, *args) for name, teacher in self.teachers.items()
        }
        self.pairs[None] = Pair(self.adapter, student_cfg=self.student_cfg)
        for method in self.methods.values():
            method.pair = self.pairs[method.teacher]
            method.setup(method.pair)
            self.adapter.tapped((*method.student_taps, *method.student_calls))  # a name that is not there fails here
            if method.teacher is not None:
                method.pair.teacher.adapter.tapped(method.teacher_taps)
            if not method.active:
                method.requires_grad_(False)
            method.balance = build_balance(method)
        require_one_task_weight(self.methods)
        self.variants = named_variants(self.pairs, {name: m.prediction_variants() for name, m in self.methods.items()})
        for name, pair in self.pairs.items():
            for s, t in () if pair.match is None else pair.match.pairs:
                of = '' if name == DEFAULT else f' of {name}'
                levels = pair.match.student_levels[s], pair.match.teacher_levels[t]
                print_log(f'matched: student {levels[0]} <- teacher{of} {levels[1]}', 'current')

    def _count_views(self) -> None:
        """Says what several views of an image cost; refuses those of mixed images."""
        several = [method for method in self.methods.values() if method.num_views > 1 and method.active]
        if several:
            require_unmixed(self.student.data_preprocessor, [method.name for method in several])
        for method in several:
            passes = 'in one joint pass' if method.joint else f'in {method.num_views} passes'
            print_log(
                f'{method.name} reads {method.num_views} views of each image, which the student sees {passes} and the '
                f'teacher in {method.num_views}: a step costs about {method.num_views} times as much',
                'current',
            )

    def train(self, mode: bool = True) -> 'Distiller':
        """Enters training or evaluation, once it is known that the last step was sound (:class:`LossGuard`)."""
        self.guard.settle()
        return super().train(mode)

    def init_weights(self) -> None:
        """Initialises the student as the plain run would, then what it inherits and what the methods train."""
        self.student.init_weights()
        if self.init_student:
            if self.teacher is None:
                raise ValueError(f'init_student={self.init_student!r} needs a teacher to start from, and there is none')
            self.inherited = inherit_weights(self.student, self.teacher.model, self.init_student)
            print_log(f'init_student, from the teacher: {self.inherited}', 'current')
        with isolated_rng():
            for method in self.methods.values():
                method.init_weights()
        self._is_init = True

    def forward(
        self, inputs: Tensor, data_samples: Optional[list] = None, mode: str = 'tensor', views: Sequence[Tensor] = ()
    ) -> Any:
        """Computes losses (``mode='loss'``), predicts as :attr:`variant` (``'predict'``) or runs the student."""
        if mode == 'loss':
            require_hooks(self)
            return self.loss(inputs, data_samples, views)
        if mode == 'predict':
            if self.variants[self.variant].learned:  # the student is whole in any runner
                require_hooks(self)
            return self.predict(inputs, data_samples)
        return self.student(inputs, data_samples, mode=mode)

    def loss(self, inputs: Tensor, data_samples: Sequence, views: Sequence[Tensor] = ()) -> dict[str, Any]:
        """Returns the student's losses under their own names and each method's as ``<method>.<name>``.

        Raises:
            ValueError: One of them is not finite, see :class:`LossGuard`.
        """
        with self.guard.watching(self):
            losses = self._losses(inputs, data_samples, views)
            idle = [p for m in self.methods.values() for p in m.idle_parameters()] if get_world_size() > 1 else []
            if idle:
                losses['loss_idle'] = sum(p.sum() for p in idle) * 0
            return self.guard(losses, data_samples, self.parameters())

    def _losses(self, inputs: Tensor, data_samples: Sequence, views: Sequence[Tensor]) -> dict[str, Any]:
        active = self.running
        if not active:
            return self.student(inputs, data_samples, mode='loss')
        with Step(self.adapter, active, inputs, data_samples, views, self.view_names) as step:
            losses = dict(_scaled(step.task_losses, [method.task_factor for method in active]))
            w_task = math.prod(method.full_task_weight for method in active)
            for method in active:
                own = method.losses(step.student_view(method), step.teacher_view(method), data_samples)
                if method.balance is not None:
                    own = method.balance(own, step.task_losses, step.student_features(method), w_task)
                losses.update({f'{method.name}.{key}': value for key, value in _scaled(own, [method.factor])})
        return losses

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: Optional[Sequence] = None) -> Sequence:
        """Predicts as :attr:`variant`."""
        return self.variants[self.variant].predict(inputs, data_samples)

    def set_variant(self, variant: str) -> None:
        """Chooses what ``mode='predict'`` predicts as, one of :attr:`variants`.

        Raises:
            ValueError: There is no such variant; the message says which there are, and why not this one.
        """
        if variant not in self.variants:
            reasons = [m.refused[variant] for m in self.methods.values() if variant in m.refused]
            raise ValueError(
                f'no variant {variant!r}: this distiller can predict as {tuple(self.variants)}. ' + ' '.join(reasons)
            )
        self.variant = variant

    def to_empty(self, *args: Any, **kwargs: Any) -> 'Distiller':
        """Empties student and methods, as torch does it; a teacher's weights are moved instead."""
        device = kwargs.get('device', args[0] if args else None)
        for teacher in self.teachers.values():
            teacher.model.to(device)
        teachers, self.teachers = self.teachers, {}
        try:
            return super().to_empty(*args, **kwargs)
        finally:
            self.teachers = teachers

    def _apply(self, fn: Callable, *args: Any, **kwargs: Any) -> 'Distiller':
        for teacher in self.teachers.values():
            teacher.model._apply(fn, *args, **kwargs)  # a teacher moves with the model, and only that
        return super()._apply(fn, *args, **kwargs)


def _scaled(losses: dict[str, Any], weights: Sequence[float]) -> Iterator[tuple[str, Any]]:
    weight = 1.0
    for w in weights:
        weight *= w
    for name, value in losses.items():
        if weight == 1.0 or 'loss' not in name:
            yield name, value
        else:
            yield name, [v * weight for v in value] if isinstance(value, (list, tuple)) else value * weight
