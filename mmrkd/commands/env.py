"""Print versions and hardware, for a report of a fault.

Examples:
  mmrkd env
"""

import argparse
import platform

NOISE = ('PyTorch', 'MMEngine', 'PyTorch compiling details', 'numpy_random_seed')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(args: argparse.Namespace) -> None:
    """Prints one line for each fact."""
    for name, value in facts().items():
        print(f'{name}: {value}')


def facts() -> dict[str, object]:
    """Returns what the frameworks say of themselves, and what mmrkd makes of the machine."""
    import os

    import torch
    from mmengine.utils.dl_utils import collect_env

    from mmrkd.engine.optim import computes_bfloat16
    from mmrkd.stack import EXTRAS, OPTIONAL, REQUIRED, installed_version
    from mmrkd.version import __version__

    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    native, reason = computes_bfloat16(device)
    found = {'mmrkd': __version__}
    found.update((name, installed_version(name) or 'not installed') for name in (*REQUIRED, *OPTIONAL, *EXTRAS))
    found.update((name, value) for name, value in collect_env().items() if name not in NOISE)
    found.update(
        processor=f'{processor()}, {os.cpu_count()} cores',
        threads=torch.get_num_threads(),
        precision=f'{"bfloat16" if native else "float32"} ({reason})',
    )
    return found


def processor() -> str:
    """Returns the name of the processor."""
    try:
        with open('/proc/cpuinfo') as file:
            return next(line.split(':', 1)[1].strip() for line in file if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
