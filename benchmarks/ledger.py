"""The ledger: one JSON line for each finished run."""

import hashlib
import json
import os
import os.path as osp
from collections.abc import Iterator
from typing import Any, Optional

from mmengine.config import Config

from benchmarks.runs import ROOT, Run

PATH = osp.join(ROOT, 'benchmarks', 'ledger.jsonl')


def read(path: str = PATH) -> list[dict[str, Any]]:
    """Returns all lines, oldest first. A last line that a kill cut short is left out."""
    return list(_lines(path)) if osp.exists(path) else []


def append(record: dict[str, Any], path: str = PATH) -> None:
    """Adds a line, on disk when this returns."""
    torn = osp.exists(path) and not open(path, 'rb').read().endswith(b'\n') and osp.getsize(path) > 0
    with open(path, 'a') as file:
        file.write('\n' * torn + json.dumps(record, sort_keys=True) + '\n')
        file.flush()
        os.fsync(file.fileno())


def find(records: list[dict[str, Any]], run: Run, digest: Optional[str] = None) -> Optional[dict[str, Any]]:
    """Returns the newest line of a run, or ``None``.

    Args:
        records: Lines.
        run: Which one.
        digest: Only a line of a run that was told to do just this. Defaults to any.
    """
    for record in reversed(records):
        if record['run'] == run.name and digest in (None, record['config']):
            return record
    return None


def digest(cfg: Config, data: str = '') -> str:
    """Hash of a resolved config without the teacher's files and the place of the data: what a run is told to do."""
    settings = cfg.to_dict()
    if 'teacher' in settings.get('model', {}):
        settings['model'].pop('teacher')
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256((text.replace(data, '') if data else text).encode()).hexdigest()[:12]


def _lines(path: str) -> Iterator[dict[str, Any]]:
    with open(path) as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                continue
