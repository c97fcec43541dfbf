"""BatchNorm statistics of a teacher that drift with the batches, without the teacher being touched."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmrkd.models.teacher import FrozenTeacher


class TeacherStatistics(nn.Module):
    """Running statistics of a teacher as one method sees them, that of SemiOnlineKD with ``teacher_bn='train'``.

    The teacher is immutable: other methods and other distillers go on seeing what it was trained with. So the drifting
    statistics are buffers of this module. They take the place of the teacher's inside one ``with`` block, and since
    they are part of the method's state, a resumed run goes on as it was, and a tested or exported bridge has the
    features that it was trained on.

    Args:
        teacher: The teacher.
    """

    def __init__(self, teacher: FrozenTeacher) -> None:
        super().__init__()
        self.teacher = teacher
        for name, _, key in self._places():
            self.register_buffer(_flat(name, key), teacher.model.get_submodule(name)._buffers[key].clone())

    @contextmanager
    def drifting(self) -> Iterator[None]:
        """BatchNorm normalises by the batch and moves these statistics, as the authors' code does in training."""
        norms = [norm for _, norm, _ in self._places()]
        with self.fixed():
            for norm in norms:
                norm.train()
            try:
                yield
            finally:
                for norm in norms:
                    norm.eval()

    @contextmanager
    def fixed(self) -> Iterator[None]:
        """These statistics stand in the place of the teacher's, and nothing moves."""
        places = self._places()
        originals = [norm._buffers[key] for _, norm, key in places]
        for name, norm, key in places:
            norm._buffers[key] = getattr(self, _flat(name, key))
        try:
            yield
        finally:
            for (_, norm, key), original in zip(places, originals):
                norm._buffers[key] = original

    def named_state(self) -> dict[str, Tensor]:
        """Returns them under the names that they have in the teacher's state dict."""
        return {f'{name}.{key}': getattr(self, _flat(name, key)) for name, _, key in self._places()}

    def _places(self) -> list[tuple[str, nn.Module, str]]:
        norms = [(name, m) for name, m in self.teacher.model.named_modules() if isinstance(m, _BatchNorm)]
        return [(name, m, key) for name, m in norms for key, value in m._buffers.items() if value is not None]


def _flat(name: str, key: str) -> str:
    return f'{name}.{key}'.replace('.', '_')
