"""Which versions of torch and of the OpenMMLab libraries mmrkd runs on."""

import importlib

REQUIRED: dict[str, tuple[str, str]] = {
    'torch': ('2.0', '3.0'),
    'mmengine': ('0.10.0', '1.0.0'),
    'mmcv': ('2.0.0', '3.0.0'),
}
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


def check_stack(required: dict[str, tuple[str, str]] = REQUIRED) -> None:
    """Checks that every required package is there in a version within its range.

    Args:
        required: For each package the lowest version that fits and the lowest that does not.

    Raises:
        ImportError: A package is missing or does not fit. The message says what to install.
    """
    for name, (low, high) in required.items():
        try:
            found = importlib.import_module(name).__version__
        except ImportError as error:
            raise ImportError(f'mmrkd needs {name}>={low},<{high}, but importing it failed: {error}\n{FIX}') from error
        if not release(low) <= release(found) < release(high):
            raise ImportError(f'mmrkd needs {name}>={low},<{high}, but found {name} {found}.\n{FIX}')
