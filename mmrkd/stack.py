"""Which versions of torch and of the OpenMMLab libraries mmrkd runs on."""

import importlib
from importlib import metadata
from typing import Optional

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
DISTRIBUTIONS = {
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmcv': ('onedl-mmcv', 'mmcv'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
}
"""Import name -> what it may be installed as: the maintained fork, the original."""
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
    for distribution in DISTRIBUTIONS.get(name, (name,)):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def check_stack(
    required: dict[str, tuple[str, str]] = REQUIRED, optional: dict[str, tuple[str, str]] = OPTIONAL
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


def _imported_version(name: str, low: str, high: str) -> str:
    """The version of a package that lies somewhere on the path without being installed."""
    try:
        return importlib.import_module(name).__version__
    except ImportError as error:
        raise ImportError(f'mmrkd needs {name}>={low},<{high}, but importing it failed: {error}\n{FIX}') from error
