"""Names in the state dict of a distiller: the student under its plain names, the methods behind it."""

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

STUDENT_PREFIX = 'student.'
METHODS_PREFIX = 'methods.'
FSDP_PREFIX = '_fsdp_wrapped_module.'


def plain_name(name: str) -> str:
    """Returns the name that a parameter of the student has in the plain model; others stay as they are."""
    return name[len(STUDENT_PREFIX) :] if name.startswith(STUDENT_PREFIX) else name


def rename_on_save(_module: nn.Module, state_dict: 'OrderedDict[str, Tensor]', prefix: str, _metadata: Any) -> None:
    """Hook of ``state_dict()``: takes the prefix off the student's names, and puts those of the methods last."""
    if prefix.endswith(FSDP_PREFIX):
        return  # FSDP looks for its own names next; SplitCheckpointHook renames them in the checkpoint
    own = [k for k in state_dict if k.startswith(prefix + STUDENT_PREFIX)]
    rest = [k for k in state_dict if k.startswith(prefix + METHODS_PREFIX)]
    for key in own:
        state_dict[prefix + key[len(prefix + STUDENT_PREFIX) :]] = state_dict.pop(key)
    versions = getattr(state_dict, '_metadata', {})
    for key in [k for k in versions if k.startswith(prefix + STUDENT_PREFIX)]:
        versions[prefix + key[len(prefix + STUDENT_PREFIX) :]] = versions.pop(key)
    for key in rest:  # after the student, so that its keys keep the order of the plain model
        state_dict[key] = state_dict.pop(key)


def rename_on_load(state_dict: dict[str, Tensor], prefix: str, *_args: Any) -> None:
    """Hook before ``load_state_dict()``: puts the prefix before the student's plain names."""
    for key in [k for k in state_dict if k.startswith(prefix)]:
        name = key[len(prefix) :]
        if not name.startswith((STUDENT_PREFIX, METHODS_PREFIX)):
            state_dict[f'{prefix}{STUDENT_PREFIX}{name}'] = state_dict.pop(key)
