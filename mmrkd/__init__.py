"""Knowledge distillation for OpenMMLab: wraps an untouched mmdet or mmpretrain config, trains a better student.

Importing the package checks that the installed stack fits and registers every module under the scope ``mmrkd``.
"""

from mmrkd.stack import check_stack
from mmrkd.version import __version__

check_stack()

from mmrkd import engine, models  # noqa: E402  (the check comes first, so that its message is what a user sees)
from mmrkd.runner import Runner  # noqa: E402

__all__ = ['Runner', '__version__', 'check_stack', 'engine', 'models']
