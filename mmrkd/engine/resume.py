"""What a run starts from: found, read and judged before mmengine touches it."""

import glob
import os.path as osp
import re
import zipfile
from typing import Optional, Union

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from mmrkd.checkpoint import BrokenCheckpointError, load_checkpoint_file, load_strictly
from mmrkd.models import Distiller


def settle_checkpoint(cfg: Union[Config, ConfigDict], allow_pickle: bool = False) -> None:
    """Decides what a config resumes or loads from, and sets ``cfg.load_from``.

    mmengine runs what is pickled in a checkpoint if it cannot be read in another way, and resumes from the file that
    was written last, complete or not. So every file is read by :func:`mmrkd.checkpoint.load_checkpoint_file` first.

    Args:
        cfg: Config of a run, or the arguments of a runner; changed in place.
        allow_pickle: Whether checkpoints may run code of their own.

    Raises:
        ValueError: The file cannot be read, or holds objects that would run code.
        FileNotFoundError: A file that was named is not there.
    """
    if cfg.get('resume') and cfg.get('load_from') is None:
        cfg.load_from = latest_intact_checkpoint(cfg.work_dir, allow_pickle)
        if cfg.load_from is None:
            cfg.resume = False
            print_log(f'nothing to resume in {cfg.work_dir!r}: training starts from the beginning')
    elif cfg.get('load_from') is not None:
        require_safe(cfg.load_from, allow_pickle)


def require_fit(model: nn.Module, path: str, allow_pickle: bool = False) -> None:
    """Checks that the weights in a checkpoint are those of a model: mmengine only logs what does not fit, and goes on.

    Args:
        model: A plain model, or a distiller, of which the student counts; what is wrapped around it (for parallel
            processes, for test-time augmentation) does not.
        path: The checkpoint.
        allow_pickle: Whether it may run code of its own.

    Raises:
        ValueError: Keys are missing or unexpected, or shapes differ.
    """
    model = model.module if is_model_wrapper(model) or isinstance(model, BaseTTAModel) else model
    model = model.student if isinstance(model, Distiller) else model
    load_strictly(model, load_checkpoint_file(path, allow_pickle)['state_dict'], f'checkpoint {path!r}')


def latest_intact_checkpoint(work_dir: str, allow_pickle: bool = False) -> Optional[str]:
    """Returns the newest checkpoint of a folder that can be read to its end; ``None`` if there are none at all.

    Best checkpoints do not count: they have no state of the optimiser.

    Raises:
        ValueError: All of them are broken, or one holds objects that would run code.
    """
    candidates = _candidates(work_dir)
    for path in candidates:
        try:
            _read_to_the_end(path, allow_pickle)
        except BrokenCheckpointError as error:
            print_log(f'{error} It was probably being written when the run was killed; the one before it is tried.')
        else:
            return path
    if candidates:
        raise ValueError(f'no checkpoint in {work_dir!r} is intact: {candidates}. Remove them to start afresh.')
    return None


def _candidates(work_dir: str) -> list[str]:
    """The file that mmengine names as the last one, then the others, from the highest number in the name down."""
    found = [p for p in glob.glob(osp.join(work_dir, '*.pth')) if not osp.basename(p).startswith('best_')]

    def number(path: str) -> int:
        return int(([0] + re.findall(r'\d+', osp.basename(path)))[-1])

    found.sort(key=lambda path: (number(path), osp.getmtime(path)), reverse=True)
    note = osp.join(work_dir, 'last_checkpoint')
    if osp.isfile(note):
        with open(note) as file:
            last = file.read().strip()
        if osp.isfile(last):
            found = [last, *(p for p in found if osp.abspath(p) != osp.abspath(last))]
    return found


def _read_to_the_end(path: str, allow_pickle: bool) -> None:
    load_checkpoint_file(path, allow_pickle)
    if zipfile.is_zipfile(path):  # torch itself does not look at the checksums
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise BrokenCheckpointError(f'{path!r} is damaged: the checksum of {damaged!r} in it is wrong.')


def require_safe(path: str, allow_pickle: bool = False) -> None:
    """Checks that a checkpoint can be read without running what is inside it.

    Args:
        path: A file, or an address.
        allow_pickle: Whether it may run code of its own; then it is not looked at.

    Raises:
        ValueError: It holds objects that would run code, or cannot be read.
        FileNotFoundError: There is no such file.
    """
    if allow_pickle:
        return
    if '://' in path and not path.startswith(('http://', 'https://')):
        raise ValueError(
            f'{path!r} cannot be checked before it is loaded. Download it first, or set allow_pickle = True in the '
            'config (the command: --allow-pickle).'
        )
    try:
        load_checkpoint_file(path)
    except BrokenCheckpointError as error:
        raise ValueError(f'{error} --resume without a file takes the newest intact one of the work dir.') from error
