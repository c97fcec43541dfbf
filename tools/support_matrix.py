"""Tries stock configs of mmdet, mmpretrain and mmseg and writes docs/support_matrix.md and ..._segmentation.md.

Results are kept in files of that name that end in .json: only what is not there, or is named, is tried.
"""

import argparse
import gc
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.utils import get_installed_path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mmrkd.support import (  # noqa: E402
    render,
    render_segmentors,
    segmentor_names,
    stock_names,
    try_config,
    try_segmentor,
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', help='only configs whose name begins so, e.g. mmdet::atss')
    parser.add_argument('--again', action='store_true', help='try everything again')
    parser.add_argument('--failed', action='store_true', help='of what was tried before, try again only what failed')
    parser.add_argument(
        '--out', default=ROOT / 'docs' / 'support_matrix', type=Path, help='without .md and .json (default: in docs/)'
    )
    parser.add_argument('--limit', default=150, type=int, help='CPU seconds for one config (default: %(default)s)')
    args = parser.parse_args()
    wanted = tuple(args.names or [''])
    names = [name for name in stock_names() if name.startswith(wanted)]
    segmentors = [name for name in segmentor_names() if name.startswith(wanted)]
    if not names and not segmentors:
        parser.error(f'no stock config has a name that begins with {" or ".join(args.names)}')
    torch.set_num_threads(1)
    MMLogger.get_current_instance().setLevel('ERROR')
    path = args.out.absolute()  # each trial changes the working directory
    if names:
        try_all(names, path, render, args)
    if segmentors and importlib.util.find_spec('mmseg') is not None:
        try_all(segmentors, path.with_name(f'{path.name}_segmentation'), render_segmentors, args)


def try_all(names, path, page, args):
    path = path.with_suffix('.json')
    results = json.loads(path.read_text()) if path.is_file() else {}
    for name in names:
        failed = any(status == 'fails' for status, _ in results.get(name, {}).get('methods', {}).values())
        if name not in results or args.again or (failed if args.failed else args.names):
            results[name] = try_in_time(name, args.limit)
            gc.collect()  # models refer to themselves, and several of them fill the memory
            print(name, results[name]['features'], results[name]['methods'], flush=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(dict(sorted(results.items())), indent=1) + '\n')
            path.with_suffix('.md').write_text(page(results))


def try_in_time(name, limit):
    library = name.split('::')[0]
    init_default_scope(library)
    os.chdir(Path(get_installed_path(library)) / '.mim')  # some configs name others relative to it
    signal.signal(signal.SIGPROF, lambda *_: (_ for _ in ()).throw(TimeoutError(f'more than {limit} s of CPU')))
    signal.setitimer(signal.ITIMER_PROF, limit)
    try:
        return try_segmentor(name) if library == 'mmseg' else try_config(name)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == '__main__':
    main()
