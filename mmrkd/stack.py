"""Which versions of torch and of the OpenMMLab libraries mmrkd runs on."""

import importlib
import importlib.util
from importlib import metadata
from typing import Any, Optional

REQUIRED: dict[str, tuple[str, str]] = {
    'torch': ('2.0', '3.0'),
    'mmengine': ('0.10.0', '1.0.0'),
    'mmcv': ('2.0.0', '3.0.0'),
}
OPTIONAL: dict[str, tuple[str, str]] = {
    'mmdet': ('3.3.0', '4.0.0'),
    'mmpretrain': ('1.2.0', '2.0.0'),
}
"""Libraries of which one may be absent; one that is there must fit."""
EXTRAS: dict[str, tuple[str, str]] = {'mmseg': ('1.2.0', '2.0.0'), 'mmpose': ('1.3.0', '2.0.0')}
"""Libraries that are only there where they were asked for."""
MAY_BE_ABSENT = {**OPTIONAL, **EXTRAS}
EXTRA_OF = {'mmseg': 'segmentation', 'mmpose': 'pose'}
"""Import name -> extra of this package that installs it."""
DISTRIBUTIONS = {
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmcv': ('onedl-mmcv', 'mmcv'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
    'mmpose': ('onedl-mmpose', 'mmpose'),
}
"""Import name -> what it may be installed as: the maintained fork, the original."""
INSTALLED_BY = {
    'mmseg': "pip install 'mmrkd[segmentation]', which is onedl-mmsegmentation for the maintained fork of the stack; "
    'beside the original one: pip install mmsegmentation ftfy regex.',
    'mmpose': "pip install cython, then pip install --no-build-isolation --no-binary xtcocotools 'mmrkd[pose]', which "
    'is mmpose beside either stack.',
}
"""Import name of a library of an extra -> how to install it."""
FIX = (
    'Install a stack that is tested, either\n'
    '  pip install torch==2.11.0 torchvision==0.26.0 "setuptools>=77,<81" wheel ninja psutil\n'
    '  pip install --no-build-isolation onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 onedl-mmdetection==3.5.1 '
    'onedl-mmpretrain==1.3.6\n'
    'or torch==2.1.2 "numpy<2" with mmengine==0.10.7 mmcv==2.1.0 mmdet==3.3.0 mmpretrain==1.2.0.'
)


def release(version: str) -> tuple[int, ...]:
    """Returns the numeric release of a version: ``'2.11.0+cu130'`` gives ``(2, 11, 0)``."""
    numbers = []
    for part in version.split('+')[0].split('.')[:3]:
        digits = ''.join(c for c in part if c.isdigit())
        numbers.append(int(digits) if digits else 0)
    return tuple(numbers + [0] * (3 - len(numbers)))


def installed_version(name: str) -> Optional[str]:
    """Returns the version of an installed package, which is not imported; ``None`` if nothing says that it is there.

    Args:
        name: What one imports; it may be installed under another name.
    """
    found = _installed(name)
    return None if found is None else found[1]


def is_fork(name: str) -> bool:
    """Whether a library is there as the maintained fork, under whose name mmengine does not look for it."""
    found = _installed(name)
    return found is not None and found[0] == DISTRIBUTIONS[name][0]


def _installed(name: str) -> Optional[tuple[str, str]]:
    """As what a package is installed, and in which version."""
    for distribution in DISTRIBUTIONS.get(name, (name,)):
        try:
            return distribution, metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def check_stack(
    required: dict[str, tuple[str, str]] = REQUIRED, optional: dict[str, tuple[str, str]] = MAY_BE_ABSENT
) -> None:
    """Checks that every required package is there in a version within its range, and the optional ones if they are.

    Args:
        required: For each package the lowest version that fits and the lowest that does not.
        optional: The same for packages that may be absent.

    Raises:
        ImportError: A package is missing or does not fit. The message says what to install.
    """
    for name, (low, high) in {**required, **optional}.items():
        found = installed_version(name)
        if found is None and name in required:
            found = _imported_version(name, low, high)
        if found is not None and not release(low) <= release(found) < release(high):
            raise ImportError(f'mmrkd needs {name}>={low},<{high}, but found {name} {found}.\n{FIX}')


def require_extra(name: Any) -> None:
    """Checks that a library which only an extra installs is there; any other name passes.

    Args:
        name: The scope of a config, which is the import name of its library.

    Raises:
        ImportError: It is not there. The message says which extra to install.
    """
    if name not in EXTRA_OF:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:  # a folder of that name is no package
        raise ImportError(
            f'this config is for {name}, which is not installed. Install the extra {EXTRA_OF[name]!r}: '
            f'{INSTALLED_BY[name]}'
        )


def _imported_version(name: str, low: str, high: str) -> str:
    """The version of a package that lies somewhere on the path without being installed."""
    try:
        return importlib.import_module(name).__version__
    except ImportError as error:
        raise ImportError(f'mmrkd needs {name}>={low},<{high}, but importing it failed: {error}\n{FIX}') from error
