"""On what a run was trained."""

import hashlib
import platform
import subprocess

from benchmarks.runs import ROOT

PACKAGES = ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain')


def versions() -> dict[str, str]:
    """Versions of python and of the packages that matter, by import name."""
    import importlib

    found = {'python': platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.import_module(name).__version__
        except ImportError:
            continue
    return found


def commit() -> str:
    """The commit of the clone, with a ``+`` if files differ from it."""
    git = ['git', '-C', ROOT]
    head = subprocess.run([*git, 'rev-parse', '--short=10', 'HEAD'], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, 'status', '--porcelain', '--', 'mmrkd', 'configs'], capture_output=True, text=True)
    return head + ('+' if changed.stdout.strip() else '')


def file_hash(path: str) -> str:
    """The first digits of the SHA-256 of a file."""
    with open(path, 'rb') as file:
        return hashlib.sha256(file.read()).hexdigest()[:12]
