"""Where checkpoints are written: on a local disk, whole or not at all."""

import os

from mmengine.fileio import LocalBackend, register_backend

NAME = 'mmrkd.CheckpointBackend'


@register_backend(NAME, force=True)
class CheckpointBackend(LocalBackend):
    """Writes through a temporary file, and removes old files only when it is told that the new one is there.

    mmengine's backend writes under the final name, so a process that is killed on the way leaves half a checkpoint,
    and its ``CheckpointHook`` has deleted the previous one by then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outdated: list[str] = []

    def put(self, obj: bytes, filepath: str) -> None:
        """Writes a file that is complete whenever it can be seen under its name, a power cut included."""
        part = f'{filepath}.part'
        os.makedirs(os.path.dirname(part) or '.', exist_ok=True)
        try:
            with open(part, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, filepath)
        except OSError:
            if os.path.exists(part):  # half a file would keep the disk full
                os.remove(part)
            raise

    def remove(self, filepath: str) -> None:
        """Notes a file that :meth:`remove_outdated` is to remove."""
        self.outdated.append(str(filepath))

    def remove_outdated(self) -> None:
        """Removes what was noted."""
        while self.outdated:
            path = self.outdated.pop()
            if os.path.isfile(path):
                os.remove(path)
