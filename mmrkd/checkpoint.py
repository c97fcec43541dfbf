"""Reading checkpoint files without running what is inside them, and loading them without losing a key."""

import os
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from mmrkd.stack import release

METHOD_STATE = 'mmrkd'
"""Top-level entry of a checkpoint that holds the state of the distillation methods."""
RUN_STATE = 'mmrkd_run'
"""Top-level entry that holds what an exact continuation needs beside weights and optimiser."""
FACTS = 'mmrkd_facts'
"""Top-level entry that holds what a diagnosis has gathered, see :class:`mmrkd.diagnosis.Facts`."""


class BrokenCheckpointError(ValueError):
    """A file that is no checkpoint, or only part of one."""


class _Ignored:
    """Stands for an object that is not needed and must not be made, whatever it is called with."""

    def __init__(self, *_args: Any) -> None:
        pass


# The log histories (``message_hub``) in every checkpoint of mmengine's runner refer to their methods through getattr.
_IGNORED = ('builtins.getattr', 'mmengine.logging.history_buffer.HistoryBuffer')


def _read_safely(path: str) -> Any:
    """Reads tensors, plain containers and numpy values; anything else in the file is an UnpicklingError."""
    if release(torch.__version__) >= (2, 6, 0):
        multiarray = (getattr(np, '_core', None) or np.core).multiarray
        dtypes = [type(np.dtype(kind)) for kind in ('f4', 'f8', 'i4', 'i8', 'u1', 'b1')]
        harmless = [multiarray._reconstruct, multiarray.scalar, np.ndarray, np.dtype, bytes, *dtypes]
        with torch.serialization.safe_globals([*((_Ignored, name) for name in _IGNORED), *harmless]):
            return torch.load(path, map_location='cpu', weights_only=True)
    # Older torch cannot be told of further harmless names, so its own unpickler is narrowed instead.
    reader = ModuleType('narrow_pickle')
    reader.Unpickler = _NarrowUnpickler
    reader.load = lambda file, **kwargs: _NarrowUnpickler(file, **kwargs).load()
    return torch.load(path, map_location='cpu', pickle_module=reader, weights_only=False)


class _NarrowUnpickler(pickle.Unpickler):
    """Finds the few names that a checkpoint needs, and no other."""

    NAMES = {
        'collections': ('OrderedDict', 'Counter'),
        'torch': ('Size', 'device', *(n for n in dir(torch) if isinstance(getattr(torch, n), torch.dtype))),
        'torch._utils': ('_rebuild_tensor_v2', '_rebuild_parameter', '_rebuild_tensor'),
        'numpy': ('ndarray', 'dtype'),
        'numpy.core.multiarray': ('_reconstruct', 'scalar'),
        'numpy._core.multiarray': ('_reconstruct', 'scalar'),
        '_codecs': ('encode',),
        'builtins': ('bytes',),  # what an array without elements consists of
        '__builtin__': ('bytes',),
    }

    def find_class(self, module: str, name: str) -> Any:
        if f'{module}.{name}' in _IGNORED or f'{module}.{name}' == '__builtin__.getattr':
            return _Ignored
        if name in self.NAMES.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f'{module}.{name} is not among the names that a checkpoint needs')


def load_checkpoint_file(path: str, allow_pickle: bool = False) -> dict[str, Any]:
    """Reads a checkpoint to the CPU.

    Args:
        path: A file, or an ``http(s)://`` address, which is downloaded into torch's hub folder first.
        allow_pickle: Whether the file may run code of its own. Only for files that you trust. Defaults to False.

    Returns:
        The checkpoint, with at least ``state_dict`` (a bare state dict is wrapped).

    Raises:
        FileNotFoundError: There is no such file.
        BrokenCheckpointError: The file is no checkpoint, or not a whole one.
        ValueError: It holds no weights, or objects that only unrestricted unpickling can make.
    """
    path = _local_copy(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'checkpoint {path!r} does not exist (looked in {os.getcwd()!r})')
    with open(path, 'rb') as file:
        start = file.read(2)
    if start != b'PK' and start[:1] != pickle.PROTO:
        raise BrokenCheckpointError(
            f'{path!r} is no checkpoint: torch.save writes nothing that begins with {start!r}. Is it a text, a web '
            'page, or the pointer of a file that was not downloaded?'
        )
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=False) if allow_pickle else _read_safely(path)
    except pickle.UnpicklingError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        start = next((i for i, line in enumerate(lines) if 'WeightsUnpickler' in line), 0)
        reason = ' '.join(lines[start : start + 2])
        raise ValueError(
            f'{path!r} was not loaded: it is no checkpoint, or it holds objects that would run code when they are '
            'unpickled. If you trust where it comes from, set allow_pickle=True (the tools: --allow-pickle). '
            f'torch says: {reason}'
        ) from error
    except Exception as error:  # what a reader of pickles raises on bytes that are none has no common type
        raise BrokenCheckpointError(f'{path!r} is no checkpoint, or a broken one. torch says: {error}') from error
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f'{path!r} holds a {type(checkpoint).__name__}, expected a dictionary with a state_dict')
    if 'state_dict' not in checkpoint:
        checkpoint = {'state_dict': checkpoint.get('model', checkpoint), 'meta': {}}
    state_dict = checkpoint['state_dict']
    if not state_dict or not all(isinstance(value, torch.Tensor) for value in state_dict.values()):
        raise ValueError(f'{path!r} holds no weights: its state_dict must map names to tensors')
    return dict(checkpoint)


def _local_copy(path: str) -> str:
    if not path.startswith(('http://', 'https://')):
        return os.path.expanduser(path)
    target = os.path.join(torch.hub.get_dir(), 'checkpoints', os.path.basename(path))
    if not os.path.isfile(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        torch.hub.download_url_to_file(path, target)
    return target


def load_strictly(model: nn.Module, state_dict: Mapping[str, torch.Tensor], source: str) -> None:
    """Loads weights and refuses a file that does not fit the model in every key and shape.

    Args:
        model: The module to fill.
        state_dict: Weights; a ``module.`` prefix that a parallel wrapper left is removed.
        source: Name of the file, for the message.

    Raises:
        ValueError: Keys are missing or unexpected, or shapes differ. The message lists them.
    """
    state_dict = OrderedDict((k[len('module.') :] if k.startswith('module.') else k, v) for k, v in state_dict.items())
    expected = model.state_dict()
    shapes = [
        f'{k}: expected {tuple(expected[k].shape)}, found {tuple(state_dict[k].shape)}'
        for k in expected
        if k in state_dict and expected[k].shape != state_dict[k].shape
    ]
    if shapes:  # torch refuses these on its own, but does not name what else is wrong
        missing, unexpected = [k for k in expected if k not in state_dict], [k for k in state_dict if k not in expected]
    else:  # loading first lets models rename the keys of their older versions
        missing, unexpected = model.load_state_dict(state_dict, strict=False)
    # Counters of BatchNorm came with torch 0.4.1; checkpoints that are older have none and need none.
    # What is in the file, the model itself passes over and computes anew (position tables of Swin V2).
    missing = [k for k in missing if not k.endswith('num_batches_tracked') and k not in state_dict]
    if missing or unexpected or shapes:
        raise ValueError(
            f'{source} does not fit {type(model).__name__}: '
            + '; '.join(
                f'{len(keys)} {what} ({_shortened(keys)})'
                for what, keys in (('missing keys', missing), ('unexpected keys', unexpected), ('other shapes', shapes))
                if keys
            )
            + _class_hint(shapes)
        )


def _shortened(keys: list[str], most: int = 6) -> str:
    return ', '.join(keys[:most]) + (f', and {len(keys) - most} more' if len(keys) > most else '')


def _class_hint(shapes: list[str]) -> str:
    head = [s for s in shapes if 'head' in s]
    if not head:
        return '. Is the config the one that the checkpoint was trained with?'
    return (
        '. The shapes differ in the head: the checkpoint was probably trained for other classes than the config says '
        '(num_classes). Give the config that it was trained with, and the same classes as the student.'
    )
