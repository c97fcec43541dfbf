"""Where bfloat16 is computed, and where it is only imitated."""

import platform
from pathlib import Path
from typing import Optional

import torch


def computes_bfloat16(device: torch.device, cpu_info: str = '/proc/cpuinfo') -> tuple[bool, str]:
    """Returns whether a device computes bfloat16 natively, and what that is known from.

    Without such instructions every value is converted to float32 and back: a convolution then takes up to 30 times as
    long as in float32.

    Args:
        device: Where the model is.
        cpu_info: The file in which Linux names the instructions of a processor; read where torch cannot be asked.
    """
    if device.type == 'cuda':
        return _gpu_computes_bfloat16(device)
    if device.type != 'cpu':
        return False, f'nothing is known about bfloat16 on {device.type!r}'
    asked = _asked_of_torch()
    native = _cpu_flags(cpu_info) if asked is None else asked
    source = f'torch {torch.__version__}' if asked is not None else f'the flags in {cpu_info}'
    return native, f'this processor {"computes" if native else "has no instructions for"} bfloat16, says {source}'


def _gpu_computes_bfloat16(device: torch.device) -> tuple[bool, str]:
    name = torch.cuda.get_device_name(device)
    if torch.version.hip:
        native = torch.cuda.is_bf16_supported()
    else:  # newer versions of is_bf16_supported count what is only emulated, too
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    return native, f'{name} {"computes" if native else "does not compute"} bfloat16'


def _asked_of_torch() -> Optional[bool]:
    if platform.machine().lower() in ('x86_64', 'amd64'):
        questions = [getattr(torch.cpu, name, None) for name in ('_is_avx512_bf16_supported', '_is_amx_tile_supported')]
        return None if None in questions else any(question() for question in questions)
    question = getattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', None)
    return None if question is None else bool(question())


def _cpu_flags(path: str) -> bool:
    """Looks for AVX-512 BF16 and AMX (x86), or BF16 (Arm)."""
    if not Path(path).is_file():
        return False
    lines = Path(path).read_text(errors='replace').splitlines()
    flags = next((line for line in lines if line.lower().startswith(('flags', 'features'))), '')
    return not {'avx512_bf16', 'amx_bf16', 'bf16'}.isdisjoint(flags.split())
