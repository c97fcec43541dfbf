"""Everything that a distiller can predict as, each an object of its own."""

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Optional

from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmrkd.adapters import ModelAdapter
from mmrkd.models.pair import Pair
from mmrkd.registry import MODELS


class Variant:
    """One way to predict: by itself, with a plain config and weights of its own if it is one model.

    Export, evaluation loops, the table of costs and the report ask a variant and know no method.

    Args:
        name: ``integrated``, ``bridge``, ... Where several methods have one of that name, the distiller puts the
            method's in front: ``era.integrated``.

    Attributes:
        learned: Whether methods trained a part of it, so that a plain checkpoint of the student does not hold it.
        parts: Names of the variants that run together in it, if it is not one model.
    """

    learned: bool = True
    parts: tuple[str, ...] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def predict(self, inputs: Tensor, samples: Sequence) -> Sequence:
        """Predicts from images ``(N, 3, H, W)`` as the student sees them. Called without gradients."""
        raise TypeError(f'{type(self).__name__} does not say how it predicts')

    def model_config(self) -> dict:
        """Returns the config of a plain model that predicts the same.

        Raises:
            ValueError: There is none; the message says why.
        """
        raise ValueError(f'the variant {self.name!r} is not one model; its parts are {self.parts}')

    def weights(self) -> dict[str, Tensor]:
        """Returns the state dict for :meth:`model_config`."""
        raise ValueError(f'the variant {self.name!r} is not one model; its parts are {self.parts}')

    def build(self) -> nn.Module:
        """Returns it as a plain model in evaluation mode, to be counted, timed or looked at.

        Raises:
            ValueError: It is not one model.
        """
        model = MODELS.build(ConfigDict(deepcopy(self.model_config())))
        model.load_state_dict(self.weights())
        return model.eval()


class StudentVariant(Variant):
    """The student itself.

    Args:
        name: Its name.
        adapter: Adapter of the student.
        cfg: The student's model config.
    """

    learned = False

    def __init__(self, name: str, adapter: ModelAdapter, cfg: dict) -> None:
        super().__init__(name)
        self.adapter, self.cfg = adapter, cfg

    def predict(self, inputs: Tensor, samples: Sequence) -> Sequence:
        """Predicts as the plain model does."""
        return self.adapter.model(inputs, samples, mode='predict')

    def model_config(self) -> dict:
        """Returns the student's own config."""
        return self.cfg

    def weights(self) -> dict[str, Tensor]:
        """Returns the student's weights."""
        return self.adapter.model.state_dict()

    def build(self) -> nn.Module:
        """Returns the student, not a copy."""
        return self.adapter.model


class TeacherVariant(Variant):
    """A teacher, on its own view of the images.

    Args:
        name: ``teacher``, or ``teacher.<name>`` of one that is not the default.
        pair: Student and teacher.
    """

    learned = False

    def __init__(self, name: str, pair: Pair) -> None:
        super().__init__(name)
        self.pair = pair

    def predict(self, inputs: Tensor, samples: Sequence) -> Sequence:
        """Predicts as the teacher does for its own input; with a class map, the classes of the student.

        Raises:
            ValueError: Its outputs for these classes cannot be post-processed as the student's are.
        """
        if self.pair.teacher.class_map is not None:
            return self._predict_shared(inputs, samples)
        return self.pair.teacher.model(*self.pair.convert.convert(inputs, samples), mode='predict')

    def _predict_shared(self, inputs: Tensor, samples: Sequence) -> Sequence:
        teacher, student = self.pair.teacher, self.pair.student
        obstacle = self.pair.layout_gap or student.blend_obstacle
        if obstacle:
            raise ValueError(
                f'the {self.name} knows other classes than the data, and its outputs for those of the student cannot '
                f"be read as the student's are: {obstacle}"
            )
        outputs = teacher.shared(teacher.adapter.head_outputs(teacher.extract(self.pair.convert(inputs, samples))))
        return student.blend(outputs, outputs, 0.0, samples)

    def model_config(self) -> dict:
        """Returns the teacher's config.

        Raises:
            ValueError: It sees images of another size than the data gives, or knows other classes.
        """
        require_same_images(self.name, self.pair)
        if self.pair.teacher.class_map is not None:
            raise ValueError(f'the {self.name} knows other classes than the data; only the distillation maps them')
        return self.pair.teacher.cfg

    def weights(self) -> dict[str, Tensor]:
        """Returns the teacher's weights."""
        return self.pair.teacher.model.state_dict()

    def build(self) -> nn.Module:
        """Returns the teacher, not a copy."""
        return self.pair.teacher.model


def require_same_images(variant: str, pair: Pair) -> None:
    """Raises ValueError if a model with the teacher's input size cannot run on the images of the data."""
    if pair.teacher is not None and pair.teacher.input_size is not None:
        raise ValueError(
            f"a {variant} runs on images of the teacher's input_size {tuple(pair.teacher.input_size)}, which no plain "
            "config of this data makes out of the student's images. Evaluate it with the distillation config "
            '(--variants of the test tool).'
        )


def named_variants(
    pairs: Mapping[Optional[str], Pair], by_method: Mapping[str, Sequence[Variant]]
) -> dict[str, Variant]:
    """Returns everything that a distiller can predict as, by name.

    Args:
        pairs: Name of a teacher -> pair; ``None`` -> the student alone.
        by_method: Name of a method -> its variants. A name that two methods use has the method's in front:
            ``era.integrated``.
    """
    alone = pairs[None]
    variants: list[Variant] = [StudentVariant('student', alone.student, alone.student_cfg)]
    named = {name: pair for name, pair in pairs.items() if name is not None}
    for name, pair in named.items():
        variants.append(TeacherVariant('teacher' if name == 'default' or len(named) == 1 else f'teacher.{name}', pair))
    used = Counter(variant.name for own in by_method.values() for variant in own)
    for name, own in by_method.items():
        for variant in own:
            if used[variant.name] > 1:
                variant.parts = tuple(f'{name}.{p}' if used[p] > 1 else p for p in variant.parts)
                variant.name = f'{name}.{variant.name}'
            variants.append(variant)
    return {variant.name: variant for variant in variants}
