"""The distiller: one student, one frozen teacher, a list of methods."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Callable, Optional, Union

import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmrkd.adapters import ModelAdapter, build_adapter
from mmrkd.models.inheritance import check_parts, inherit_weights
from mmrkd.models.loss_guard import LossGuard
from mmrkd.models.methods import DistillMethod, Pair
from mmrkd.models.state_names import rename_on_load, rename_on_save
from mmrkd.models.teacher import FrozenTeacher, load_model_config
from mmrkd.registry import MODELS
from mmrkd.structures import Features, LevelMatch, StudentView, TeacherView, match_levels, resized


@contextmanager
def isolated_rng() -> Iterator[None]:
    """Leaves torch's random state as it was: building the distillation must not change how the student starts."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield


@MODELS.register_module()
class Distiller(BaseModel):
    """Wraps an untouched mmdet or mmpretrain model and trains it with a teacher.

    .. code:: text

        images ── student's preprocessor ─┬─ student: features ── own head ── task losses ──────────────┐
                                          │              └────── methods ── distillation losses ────────┤ total
                                          └─ teacher's view of the same pixels: features (, outputs) ───┘

    The student's features are computed once and handed to its own head. The teacher computes features and, only if a
    method asks, outputs; never losses of its own. If no method is active (all weights 0, or ``methods=[]``) the
    teacher is not run and training is the plain one, bit for bit. Nor is it run where no active method needs it.

    ``state_dict()`` holds the student under its plain names (no prefix) and the methods under ``methods.``; the teacher
    is not in it. :class:`mmrkd.engine.hooks.SplitCheckpointHook` moves the latter out of ``checkpoint['state_dict']``,
    so that a saved checkpoint is a plain one.

    Args:
        student: Model config, see :func:`mmrkd.models.teacher.load_model_config`.
        teacher: ``dict(cfg=..., ckpt=...)``, arguments of :class:`FrozenTeacher`.
        methods: Configs of :class:`DistillMethod`.
        variant: What ``mode='predict'`` predicts as: ``student``, ``teacher`` or a variant of a method
            (``integrated``, ``blend``). Defaults to ``'student'``.
        data_preprocessor: The student's, where its config has none of its own. A runner hands over the one that
            mmpretrain's configs keep beside the model.
        on_nonfinite: What a loss term that is NaN or infinite does: ``'stop'``, ``'skip'`` or ``'ignore'``, see
            :class:`LossGuard`.
        init_student: Parts that start from the teacher's weights where name and shape agree, such as ``'neck,head'``,
            see :func:`mmrkd.models.inheritance.inherit_weights`. Defaults to none.
        resize: ``'nearest'``, ``'bilinear'`` or ``'area'`` allows the teacher's maps to be interpolated to the grid of
            the student where the two differ, and levels to be matched by the nearest stride where none is common.
            Defaults to None: nothing is resized.

    Raises:
        ValueError: Student, teacher and methods do not fit; raised while building, before any iteration.
    """

    def __init__(
        self,
        student: Union[str, dict],
        teacher: Union[dict, FrozenTeacher],
        methods: Sequence[Union[dict, DistillMethod]] = (),
        variant: str = 'student',
        data_preprocessor: Optional[dict] = None,
        on_nonfinite: str = 'stop',
        init_student: Union[str, Sequence[str]] = (),
        resize: Optional[str] = None,
    ) -> None:
        student = load_model_config(student)
        if data_preprocessor is not None:
            student.setdefault('data_preprocessor', data_preprocessor)
        student = MODELS.build(student)
        super().__init__(data_preprocessor=student.data_preprocessor)
        self.student = student
        self.adapter: ModelAdapter = build_adapter(student)
        check_parts(student, init_student)
        self.init_student, self.inherited = init_student, ''
        with isolated_rng():
            self.teacher = teacher if isinstance(teacher, FrozenTeacher) else FrozenTeacher(**teacher)
            self.teacher.follow(student)
            self.methods = nn.ModuleList(m if isinstance(m, DistillMethod) else MODELS.build(m) for m in methods)
            self.match = self._wire(resize)
        self.guard = LossGuard(on_nonfinite)
        self.names = _unique_names(self.methods)
        self.set_variant(variant)
        self._register_state_dict_hook(rename_on_save)
        self._register_load_state_dict_pre_hook(rename_on_load)

    def __getattr__(self, name: str) -> Any:
        """Finds the student's parts under their plain names, where hooks of stock configs look for them (YOLOX)."""
        student = self.__dict__.get('_modules', {}).get('student')
        if student is not None and name in student._modules:
            return student._modules[name]
        return super().__getattr__(name)

    def _wire(self, resize: Optional[str]) -> LevelMatch:
        """Matches levels on a dry run, compares the heads and lets every method build what it trains."""
        (own, own_layout), (others, others_layout) = self.adapter.dry_run(), self.teacher.adapter.dry_run()
        match = match_levels(self.adapter.levels(own), self.teacher.adapter.levels(others), resize)
        if self.teacher.input_size is not None and not match.pooled:
            raise ValueError('the teacher has an input_size of its own: that needs pooled features, not maps on a grid')
        pair = Pair(self.adapter, self.teacher, match, _layout_gap(own_layout, others_layout))
        for method in self.methods:
            method.setup(pair)
            self.adapter.tapped(method.student_taps)  # a name that is not there fails here
            self.teacher.adapter.tapped(method.teacher_taps)
            if not method.active:
                method.requires_grad_(False)
        for s, t in match.pairs:
            print_log(f'matched: student {match.student_levels[s]} <- teacher {match.teacher_levels[t]}', 'current')
        return match

    def init_weights(self) -> None:
        """Initialises the student as the plain run would, then what it inherits and what the methods train."""
        self.student.init_weights()
        if self.init_student:
            self.inherited = inherit_weights(self.student, self.teacher.model, self.init_student)
            print_log(f'init_student, from the teacher: {self.inherited}', 'current')
        with isolated_rng():
            for method in self.methods:
                method.init_weights()
        self._is_init = True

    def forward(self, inputs: Tensor, data_samples: Optional[list] = None, mode: str = 'tensor') -> Any:
        """Computes losses (``mode='loss'``), predicts as :attr:`variant` (``'predict'``) or runs the student."""
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return self.student(inputs, data_samples, mode=mode)

    def loss(self, inputs: Tensor, data_samples: Sequence) -> dict[str, Any]:
        """Returns the student's losses under their own names and each method's as ``<method>.<name>``.

        Raises:
            ValueError: One of them is not finite, see :class:`LossGuard`.
        """
        losses = self._losses(inputs, data_samples)
        idle = [p for method in self.methods for p in method.idle_parameters()] if get_world_size() > 1 else []
        if idle:
            losses['loss_idle'] = sum(p.sum() for p in idle) * 0
        return self.guard(losses, data_samples, self.parameters())

    def _losses(self, inputs: Tensor, data_samples: Sequence) -> dict[str, Any]:
        active = [(n, method) for n, method in zip(self.names, self.methods) if method.active and method.scale]
        if not active:
            return self.student(inputs, data_samples, mode='loss')
        with self.adapter.tapped(_wanted(active, 'student_taps')) as taps:
            feats = self.adapter.extract(inputs)
            task_losses, outputs = self.adapter.task_loss(feats, inputs, data_samples)
        losses = dict(_scaled(task_losses, [method.task_weight for _, method in active]))
        student = StudentView(inputs, self._matched(feats), outputs, taps)
        teacher = None
        if any(method.needs_teacher for _, method in active):
            teacher = self._teacher_view(inputs, data_samples, student.feats, _wanted(active, 'teacher_taps'))
        for name, method in active:
            own = method.losses(student, teacher, data_samples)
            for key, value in _scaled(own, [method.scale]):
                losses[f'{name}.{key}'] = value
        return losses

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: Optional[Sequence] = None) -> Sequence:
        """Predicts as :attr:`variant`."""
        if self.variant == 'student':
            return self.student(inputs, data_samples, mode='predict')
        if self.variant == 'teacher':
            inputs = self.teacher.convert(inputs, data_samples)
            return self.teacher.model(inputs, data_samples, mode='predict')
        feats = self.adapter.extract(inputs)
        method, variant = self.variant_owners[self.variant]
        return method.predict(variant, self._matched(feats), feats, inputs, data_samples)

    @property
    def variants(self) -> tuple[str, ...]:
        """Everything that this distiller can predict as."""
        return ('student', 'teacher', *self.variant_owners)

    @property
    def variant_owners(self) -> dict[str, tuple[DistillMethod, str]]:
        """Variant -> the method that predicts it, and what it calls it.

        A name that two methods use has the method's in front: ``era.integrated``.
        """
        used = Counter(variant for method in self.methods for variant in method.variants)
        return {
            variant if used[variant] == 1 else f'{name}.{variant}': (method, variant)
            for name, method in zip(self.names, self.methods)
            for variant in method.variants
        }

    def set_variant(self, variant: str) -> None:
        """Chooses what ``mode='predict'`` predicts as."""
        if variant not in self.variants:
            reasons = [method.refused[variant] for method in self.methods if variant in method.refused]
            raise ValueError(
                f'no variant {variant!r}: this distiller can predict as {self.variants}. ' + ' '.join(reasons)
            )
        self.variant = variant

    def _matched(self, feats: Any) -> Features:
        features = self.adapter.features(feats)
        return tuple(features[s] for s, _ in self.match.pairs)

    def _teacher_view(
        self, inputs: Tensor, samples: Sequence, student_feats: Features, tap_names: Sequence[str]
    ) -> TeacherView:
        inputs = self.teacher.convert(inputs, samples)
        with self.teacher.adapter.tapped(tap_names) as taps:
            all_feats = self.teacher.extract(inputs)
        features = self.teacher.adapter.features(all_feats)
        feats, cropped = [], {}
        for (s, t), own in zip(self.match.pairs, student_feats):
            same_stride = self.match.student_levels[s].stride == self.match.teacher_levels[t].stride
            if same_stride and _covers(features[t], own):
                cropped[t] = _crop(features[t], own)
                feats.append(cropped[t])
            else:  # the teacher's own head goes on reading its own map: a resized one would have another stride
                feats.append(resized(features[t], own, self.match.resize))
        all_feats = self.teacher.adapter.replace(all_feats, cropped)
        return TeacherView(
            inputs=inputs,
            feats=tuple(feats),
            all_feats=all_feats,
            compute_outputs=lambda: self.teacher.outputs(all_feats),
            taps=taps,
        )

    def _apply(self, fn: Callable, *args: Any, **kwargs: Any) -> 'Distiller':
        self.teacher.model._apply(fn, *args, **kwargs)  # the teacher moves with the model, and only that
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


def _wanted(active: Sequence[tuple[str, DistillMethod]], taps: str) -> list[str]:
    return sorted({name for _, method in active for name in getattr(method, taps)})


def _covers(teacher: Tensor, student: Tensor) -> bool:
    return all(t >= s for t, s in zip(teacher.shape[2:], student.shape[2:]))


def _crop(teacher: Tensor, student: Tensor) -> Tensor:
    """Cuts off the cells that only the teacher's wider padding added; the grids share their upper left corner."""
    if teacher.shape[2:] == student.shape[2:]:
        return teacher
    return teacher[..., : student.shape[-2], : student.shape[-1]]


def _layout_gap(student: dict[str, Any], teacher: dict[str, Any]) -> Optional[str]:
    if 'dense head' in student or 'dense head' in teacher:
        return f'student {student.get("dense head", "dense")}, teacher {teacher.get("dense head", "dense")}'
    keys = [key for key in {**student, **teacher} if student.get(key) != teacher.get(key)]
    return '; '.join(f'{key}: student {student.get(key)}, teacher {teacher.get(key)}' for key in keys) or None


def _unique_names(methods: Sequence[DistillMethod]) -> list[str]:
    names = [type(method).__name__.lower() for method in methods]
    return [f'{n}{i}' if names.count(n) > 1 else n for i, n in enumerate(names)]
