"""Knowledge distillation for OpenMMLab: wraps an untouched mmdet or mmpretrain config, trains a better student.

Importing the package checks that the installed stack fits and registers every module under the scope ``mmrkd``.
"""

import importlib
import os
import sys
from typing import Any

from mmrkd.stack import check_stack
from mmrkd.version import __version__

__all__ = ['Runner', '__version__', 'check_stack', 'engine', 'models']
_LOADED_WHEN_NEEDED = {'Runner': 'mmrkd.runner', 'engine': 'mmrkd.engine', 'models': 'mmrkd.models'}

check_stack()  # comes first, so that its message is what a user sees


def __getattr__(name: str) -> Any:
    if name not in _LOADED_WHEN_NEEDED:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    module = importlib.import_module(_LOADED_WHEN_NEEDED[name])
    return getattr(module, name) if name == 'Runner' else module


# Python calls itself `-m` while it looks for what `python -m mmrkd` is to run. The command answers `--help` without the
# seconds that torch takes; what it does then loads what it needs.
if os.path.basename((getattr(sys, 'argv', None) or [''])[0]) not in ('-m', 'mmrkd'):
    for _name in _LOADED_WHEN_NEEDED:
        globals()[_name] = __getattr__(_name)
