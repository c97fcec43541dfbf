"""Further copies of a student's upper part, on its own lower features."""

from copy import deepcopy
from typing import Any, Literal, Optional

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmrkd.adapters import ModelAdapter, build_adapter
from mmrkd.adapters.split import BODY, cut_model, find_split, handing
from mmrkd.models.heads.peer import trainable_copy
from mmrkd.models.pair import Pair


class StudentBranches(BaseModule):
    """Branches 2 to B of a student: branch 1 is the student itself, so that its checkpoint stays a plain one.

    .. code:: text

        images -- lower part --+-- upper part of the student -- feats_1 -- head -- H_1
                               +-- copy -- feats_2 -- head -- H_2
                               +-- copy -- feats_3 -- head -- H_3

    A copy is a model of the student's class whose lower modules are stand-ins
    (:func:`mmrkd.adapters.split.cut_model`), so its own code computes features, losses and predictions.

    Gradient contract: gradients flow into the copies *and* through the lower features into the student.

    Args:
        pair: The student.
        split: Where the copies begin, see :func:`mmrkd.adapters.split.find_split`.
        num: B, at least 2.
        init: ``'random'``: as the framework initialises such a model, but without pretrained weights, frozen stages
            and norms in evaluation mode. ``'student'``: what belongs to backbone and neck starts from the student's
            own, perhaps pretrained weights; the heads are random, or the branches would be one.

    Raises:
        KeyError: There is no such module to split at.
        ValueError: The student cannot be cut there, nothing lies below, or an argument is out of range.
    """

    def __init__(
        self, pair: Pair, split: Optional[str] = None, num: int = 3, init: Literal['random', 'student'] = 'random'
    ) -> None:
        super().__init__()
        if num < 2 or init not in ('random', 'student'):
            raise ValueError(f"expected num >= 2 and init 'random' or 'student', found {num} and {init!r}")
        self.pair, self.init = pair, init
        self.split = find_split(pair.student, split)
        if not self.split.taps:
            raise ValueError(f'branches share the lower part of the student, and split={split!r} leaves none of it')
        copies = (cut_model(trainable_copy(deepcopy(pair.student_cfg)), self.split) for _ in range(num - 1))
        self.models = nn.ModuleList(copies)
        self.adapters: list[ModelAdapter] = [build_adapter(model, pair.student.at) for model in self.models]

    @property
    def taps(self) -> tuple[str, ...]:
        """Modules of the student whose outputs the branches read, in the order of its forward pass."""
        return self.split.taps

    def init_weights(self) -> None:
        """Initialises the copies, each from other random numbers."""
        super().init_weights()
        if self.init == 'student':
            state = self.pair.student.model.state_dict()
            for model in self.models:
                own = {name: state[name] for name in model.state_dict() if name.startswith(BODY)}
                model.load_state_dict(own, strict=False)

    def extract(self, inputs: Tensor, taps: dict[str, Any]) -> list[Any]:
        """Returns the features of each copy, in the structure of the student's.

        Args:
            inputs: Images as the student sees them.
            taps: Outputs of :attr:`taps` in its pass.
        """
        return [self.extract_one(index, inputs, taps) for index in range(len(self.models))]

    def extract_one(self, index: int, inputs: Tensor, taps: dict[str, Any]) -> Any:
        """Returns the features of one copy."""
        with handing(self.models[index], {name: taps[name] for name in self.taps}):
            return self.adapters[index].extract(inputs)

    def branch(self, index: int) -> 'Branch':
        """Returns one copy as something to predict with."""
        return Branch(self, index)


class Branch:
    """One copy together with the student's lower part: a plain model of the student's config.

    Args:
        branches: All of them.
        index: Which one.
    """

    def __init__(self, branches: StudentBranches, index: int) -> None:
        self.branches, self.index = branches, index

    def predict(self, inputs: Tensor, samples: Any) -> Any:
        """Predicts from images as the student sees them."""
        return self.branches.adapters[self.index].predict_through(self._extract, inputs, samples)

    def _extract(self, inputs: Tensor) -> Any:
        student = self.branches.pair.student
        with student.tapped(self.branches.taps) as taps:
            student.extract(inputs)
        return self.branches.extract_one(self.index, inputs, taps)

    def whole_state(self) -> dict[str, Tensor]:
        """Returns weights for the student's plain config: its lower part and the copy."""
        return {**self.branches.pair.student.model.state_dict(), **self.branches.models[self.index].state_dict()}
