"""The student and one of its teachers, as a method stands between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor, nn

from mmrkd.adapters import ModelAdapter
from mmrkd.models.input_converter import InputConverter
from mmrkd.models.teacher import FrozenTeacher
from mmrkd.structures import Features, LevelMatch, StudentView, TeacherView, match_levels, on_student_grid


class TeacherPass(NamedTuple):
    """What a teacher's body gave: for its own images, on its own grid."""

    inputs: Tensor
    feats: Any
    taps: dict[str, Any]


@dataclass
class Pair:
    """What was found out about two models when the distiller was built.

    Attributes:
        student: Adapter of the student.
        teacher: The frozen teacher; ``None`` for methods that need none (:attr:`DistillMethod.needs_teacher`).
        match: Levels matched by stride; ``None`` without a teacher.
        layout_gap: ``None`` if the outputs of both heads can be compared one by one, otherwise what differs.
        student_cfg: Model config of the student.
        assigns_alike: Whether the two heads assign the same targets to a batch, whatever they predict.
        convert: Makes the teacher's input out of the student's. It belongs to the pair: another distiller may share
            the teacher.
    """

    student: ModelAdapter
    teacher: Optional[FrozenTeacher] = None
    match: Optional[LevelMatch] = None
    layout_gap: Optional[str] = None
    convert: Optional[InputConverter] = None
    student_cfg: Optional[dict] = None
    assigns_alike: bool = False

    @classmethod
    def of(
        cls,
        student: ModelAdapter,
        teacher: FrozenTeacher,
        resize: Optional[str] = None,
        student_cfg: Optional[dict] = None,
    ) -> 'Pair':
        """Matches levels on a dry run and compares the heads.

        Raises:
            ValueError: The tasks differ, the models have no level in common, or the teacher cannot see the images.
        """
        if student.task != teacher.adapter.task:
            kinds = type(student.model).__name__, type(teacher.model).__name__
            raise ValueError(
                f'the tasks differ: the student is a {kinds[0]} ({student.task}), the teacher a {kinds[1]} '
                f'({teacher.adapter.task}). Take a teacher of the same task.'
            )
        (own, own_layout), (others, others_layout) = student.dry_run(), teacher.adapter.dry_run()
        if teacher.class_map is not None:
            others_layout = _shared_layout(student, teacher, others)
        match = match_levels(student.levels(own), teacher.adapter.levels(others), resize)
        if teacher.input_size is not None and not match.vectors and resize is None:
            raise ValueError(
                'the teacher has an input_size of its own, so that the cells of its maps lie elsewhere than the '
                "student's: allow its maps to be interpolated (resize='bilinear' of the distiller), or compare pooled "
                'features'
            )
        preprocessors = student.model.data_preprocessor, teacher.model.data_preprocessor
        convert = InputConverter(*preprocessors, teacher.input_size, student.declares_padding)
        gap, alike = layout_gap(own_layout, others_layout), student.assigns_like(teacher.adapter)
        return cls(student, teacher, match, gap, convert, student_cfg, alike)

    def student_feats(self, feats: Any) -> Features:
        """Returns the student's matched features; all of them without a teacher."""
        features = self.student.features(feats)
        return features if self.match is None else tuple(features[s] for s, _ in self.match.pairs)

    def teacher_pass(
        self, inputs: Tensor, samples: Sequence, tap_names: Sequence[str] = (), statistics: Optional[nn.Module] = None
    ) -> TeacherPass:
        """Runs the teacher's body on the student's images; nothing of the student's own pass is needed.

        Args:
            inputs: Images as the student sees them.
            samples: Their data samples.
            tap_names: Modules of the teacher whose outputs are wanted.
            statistics: See :meth:`FrozenTeacher.extract`.
        """
        inputs = self.convert(inputs, samples)
        with self.teacher.adapter.tapped(tap_names) as taps:
            return TeacherPass(inputs, self.teacher.extract(inputs, statistics), taps)

    def teacher_view(
        self, done: TeacherPass, student_feats: Features, statistics: Optional[nn.Module] = None
    ) -> TeacherView:
        """Brings what the teacher computed to the grid of the student.

        Args:
            done: The teacher's pass.
            student_feats: Matched features of the student, whose grid counts.
            statistics: As for the pass.
        """
        all_feats = done.feats
        features = self.teacher.adapter.features(all_feats)
        feats, cropped = [], {}
        for (s, t), own in zip(self.match.pairs, student_feats):
            same_stride = self.match.student_levels[s].stride == self.match.teacher_levels[t].stride
            same_stride = same_stride and self.teacher.input_size is None
            feats.append(on_student_grid(features[t], own, same_stride, self.match.resize))
            if same_stride and _covers(features[t], own):  # a resized map would have another stride than its head knows
                cropped[t] = feats[-1]
        all_feats = self.teacher.adapter.replace(all_feats, cropped)
        return TeacherView(
            inputs=done.inputs,
            feats=tuple(feats),
            all_feats=all_feats,
            compute_outputs=lambda: self.teacher.outputs(all_feats, statistics),
            taps=done.taps,
            region_logits=lambda rois: self.teacher.region_logits(all_feats, rois),
            compute_auxiliary=lambda: self.teacher.auxiliary_outputs(all_feats, statistics),
        )

    def require_same_layout(self, what: str) -> None:
        """Raises ValueError if the outputs of the two heads cannot be compared one by one, and says what differs."""
        _refuse(what, self.student.num_classes, self.teacher.num_classes, self.layout_gap)

    def require_same_pixels(self, what: str) -> None:
        """Raises ValueError if the teacher sees resized images, so that a cell of its maps lies elsewhere."""
        if self.teacher.input_size is not None:
            raise ValueError(
                f'{what} compares maps cell by cell, but the teacher has an input_size of its own '
                f'{tuple(self.teacher.input_size)}, so that its cells lie elsewhere. Take a teacher without one, or '
                'a method on pooled features or logits.'
            )

    def require_detectors(self, what: str) -> None:
        """Raises ValueError unless both models are detectors: what reads the boxes of the ground truth."""
        if self.student.task != 'detection':
            raise ValueError(f'{what} reads boxes, found models for {self.student.task}. Take detectors.')

    def require_maps(self, what: str) -> None:
        """Raises ValueError if the matched features are pooled and have no positions."""
        if self.match.vectors:
            raise ValueError(
                f'{what} compares maps (N, C, H, W), but the features of this pair are pooled vectors (N, C). Take '
                'detectors, or classifiers without a pooling neck, or a method on pooled features (FitNets, PKD).'
            )

    def require_ground_truth(self, what: str) -> None:
        """Raises ValueError if a copy of the teacher could not compute its own losses on the student's batches."""
        require_ground_truth(self.student, self.teacher.adapter, what)

    def require_same_targets(self, what: str) -> None:
        """Raises ValueError if the teacher cannot judge by the ground truth that the student's pipeline prepares."""
        gap = self.teacher.adapter.target_gap(self.student)
        if gap is not None:
            raise ValueError(
                f"{what} lets the teacher compute its own losses from the ground truth of the student's pipeline, and "
                f'it cannot: {gap}. Take a teacher that was trained for the same targets, or switch that off (ERA with '
                "twi_on='none'), or take a method on features (FitNets)."
            )

    def require_same_classes(self, what: str) -> None:
        """Raises ValueError if the two heads do not tell the same number of classes apart: what runs the teacher's."""
        if self.teacher.class_map is not None:
            raise ValueError(
                f"{what} runs the teacher's own head, which knows other classes than the student, and class_map does "
                'not change that. Use a method on outputs (KD, LD, CWD, DIST), or one on features (FitNets).'
            )
        _refuse(what, self.student.num_classes, self.teacher.num_classes, None)

    def require_exclusive_classes(self, what: str) -> None:
        """Raises ValueError if the two heads do not line up, or do not give a softmax over classes."""
        self.require_same_layout(what)
        if self.student.sigmoid:
            raise ValueError(
                f'{what} needs exclusive classes (softmax), but the heads score each class by itself (sigmoid). Take '
                'models that are trained with a softmax, or KD, which compares independent scores too.'
            )
        if self.student.output_loss != 'softmax':
            raise ValueError(
                f'{what} needs a softmax, but the outputs of the heads are heatmaps, which are compared by their '
                'squared error. Take KD or CWD.'
            )

    def require_classifiers(self, what: str) -> None:
        """Raises ValueError unless both models tell exclusive classes of whole images apart."""
        if self.student.task != 'classification':
            raise ValueError(
                f'{what} compares classifiers, found models for {self.student.task}. KD and DIST compare the outputs '
                'of dense heads.'
            )
        self.require_exclusive_classes(what)

    def require_softmax(self, what: str) -> bool:
        """Raises ValueError unless both tell exclusive classes apart, of whole images or of regions; returns which.

        Returns:
            Whether it is regions: both models are two-stage detectors.
        """
        if self.student.task == 'classification':
            self.require_exclusive_classes(what)
            return False
        for role, adapter in (('student', self.student), ('teacher', self.teacher.adapter)):
            if adapter.region_obstacle is not None:
                raise ValueError(
                    f'{what} compares a softmax over classes, that of classifiers or of the second stage of detectors, '
                    f'and the {role} has none: {adapter.region_obstacle}. Take two-stage detectors, or KD or CrossKD, '
                    'which compare dense heads.'
                )
        self.require_same_classes(what)
        self.require_same_pixels(what)
        return True

    def softmax_logits(self, student: StudentView, teacher: TeacherView) -> tuple[Tensor, Tensor]:
        """Returns what :meth:`require_softmax` allowed to compare: ``(N, K)`` of images or ``(R, K + 1)`` of regions.

        Gradients flow into the first, the student's; regions are those that it sampled.
        """
        if self.student.task == 'classification':
            return tuple(torch.cat(self.student.logits(view.outputs)) for view in (student, teacher))
        return student.regions.logits, teacher.region_logits(student.regions.rois)


class HeadsDiffer(ValueError):
    """A term compares the outputs of two heads one by one, but they do not line up."""


def require_ground_truth(student: ModelAdapter, other: ModelAdapter, what: str) -> None:
    """Raises ValueError if the other model's own losses need what the student is trained without."""
    if other.with_mask and not student.with_mask:
        raise ValueError(
            f"{what} trains a copy of the teacher with the teacher's own losses, which need masks, and the student "
            'is trained without. Take a teacher without a mask branch, or a student with one.'
        )
    gap = other.target_gap(student)
    if gap is not None:
        raise ValueError(
            f"{what} trains a copy of the teacher with the teacher's own losses, and the student's pipeline prepares "
            f'no ground truth for them: {gap}. Take a teacher that was trained for the same targets.'
        )


def require_same_layout(student: ModelAdapter, other: ModelAdapter, what: str) -> None:
    """Raises ValueError if the outputs of two heads cannot be compared one by one; runs both on blank images."""
    gap = layout_gap(student.dry_run()[1], other.dry_run()[1])
    _refuse(what, student.num_classes, other.num_classes, gap)


def _shared_layout(student: ModelAdapter, teacher: FrozenTeacher, feats: Any) -> dict[str, Any]:
    """Layout of the teacher's outputs for the classes of the student."""
    index = teacher.class_map.index
    if student.num_classes not in (None, len(index)):
        raise ValueError(
            f'class_map names {len(index)} classes {list(teacher.class_map.names)}, the student has '
            f'{student.num_classes}: name each of them, in their order'
        )
    with teacher.adapter.evaluating():
        return teacher.adapter.layout(feats, index)


def _refuse(what: str, student: Optional[int], other: Optional[int], gap: Optional[str]) -> None:
    if student != other:
        raise ValueError(
            f'{what} needs a teacher with the classes of the student: the student has {student} classes, '
            f'the teacher {other}. Train the teacher on the same classes, name those of the student among its own '
            '(class_map of the teacher), or use a method on features alone (FitNets, or ERA with twi_on="none" and '
            'w_kd=0).'
        )
    if gap is not None:
        raise HeadsDiffer(
            f'{what} compares the outputs of the heads one by one, but they do not line up: {gap}. '
            'Give both models the same classes, strides, priors and box coder, or use a method on features.'
        )


def layout_gap(student: dict[str, Any], other: dict[str, Any]) -> Optional[str]:
    """Returns what keeps the outputs of two heads from being compared one by one; ``None`` if nothing does.

    Args:
        student: What :meth:`mmrkd.adapters.ModelAdapter.layout` says of the student's head.
        other: The same for the other model.
    """
    if 'dense head' in student or 'dense head' in other:
        return f'student {student.get("dense head", "dense")}, teacher {other.get("dense head", "dense")}'
    keys = [key for key in {**student, **other} if student.get(key) != other.get(key)]
    return '; '.join(f'{key}: student {student.get(key)}, teacher {other.get(key)}' for key in keys) or None


def _covers(teacher: Tensor, student: Tensor) -> bool:
    return all(t >= s for t, s in zip(teacher.shape[2:], student.shape[2:]))
