"""Everything that only a GPU can tell, in one command of at most eight minutes: writes one JSON.

    python -m benchmarks.gpu --out gpu.json
    python -m benchmarks.gpu --out dry.json --dry        the same on a CPU, with tiny models and few steps

Tests marked ``gpu``; step times at 1333x800 with batches of 8 and mixed precision; how often a step waits for the
device, as CUDA itself says it; a short training with ``--amp``. Each part runs in a process of its own with a limit of
its own, so that one that fails or hangs takes nothing from the others. On a bare machine run ``shared/gpu/setup.sh``
first.
"""

import argparse
import json
import os
import os.path as osp
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from typing import Any

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
LIMITS = dict(tests=100, steps=220, waits=60, training=90)  # seconds
METHODS = ('FitNets', 'KD', 'ERA', 'SemiOnlineKD')
PAIRS = {
    'retinanet r50 r18': ('retinanet/retinanet_r18_fpn_1x_coco.py', 'retinanet/retinanet_r50_fpn_1x_coco.py'),
    'faster r-cnn r50 r18': (
        'faster_rcnn/faster-rcnn_r18_fpn_1x_coco.py',
        'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    ),
}


def main() -> None:
    """Runs the parts one after the other, or (inside) one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', default='gpu.json')
    parser.add_argument('--dry', action='store_true', help='tiny models and few steps')
    parser.add_argument('--parts', nargs='+', choices=tuple(LIMITS), default=tuple(LIMITS))
    parser.add_argument('--inside', choices=tuple(PARTS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        return write(args.out, PARTS[args.inside](args.dry))
    result: dict[str, Any] = dict(dry=args.dry)
    for part in args.parts:
        result[part] = run_part(part, args.dry)
        write(args.out, result)  # what is there is there
        print(f'{part}: {json.dumps(result[part])[:300]}', flush=True)


def run_part(part: str, dry: bool) -> dict[str, Any]:
    """Runs one part in a process of its own; returns what it wrote, or how it ended, and its seconds."""
    start, limit = time.perf_counter(), LIMITS[part] * (5 if dry else 1)  # a dry run measures no machine
    with tempfile.TemporaryDirectory() as folder:
        file = osp.join(folder, 'part.json')
        command = [sys.executable, '-m', 'benchmarks.gpu', '--inside', part, '--out', file, *['--dry'] * dry]
        try:
            done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=limit)
            failed = None if done.returncode == 0 else (done.stdout + done.stderr)[-2000:]
        except subprocess.TimeoutExpired:
            failed = f'not done after {limit} s'
        found = json.load(open(file)) if osp.exists(file) else {}
    return dict(found, seconds=round(time.perf_counter() - start, 1), **({'failed': failed} if failed else {}))


def environment() -> dict[str, str]:
    """Finds this clone, also where it is not installed."""
    path = os.pathsep.join(filter(None, [ROOT, os.environ.get('PYTHONPATH')]))
    return {**os.environ, 'PYTHONPATH': path, 'PYTHONWARNINGS': 'ignore'}


def write(path: str, content: dict[str, Any]) -> None:
    """Writes a file that is whole or not there."""
    with open(f'{path}.part', 'w') as file:
        json.dump(content, file, indent=1)
    os.replace(f'{path}.part', path)


def tests(dry: bool) -> dict[str, Any]:
    """Runs the tests marked ``gpu``; without one they are all left out."""
    command = [sys.executable, '-m', 'pytest', '-q', '-m', 'gpu', 'tests/test_gpu.py', '-p', 'no:cacheprovider']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    counts = {kind: int(number) for number, kind in re.findall(r'(\d+) (passed|failed|skipped|error)', done.stdout)}
    return dict(returncode=done.returncode, **counts, **({} if done.returncode == 0 else {'end': done.stdout[-1500:]}))


def steps(dry: bool) -> dict[str, Any]:
    """Times the steps of each pair and method; what does not fit into memory is said and left out."""
    import torch

    from mmrkd.engine.benchmark import benchmark, random_batch

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    found: dict[str, Any] = dict(
        device=torch.cuda.get_device_name() if device == 'cuda' else 'cpu', torch=torch.__version__
    )
    for pair in ['tiny'] if dry else PAIRS:
        for method in METHODS[:2] if dry else METHODS:
            with tempfile.TemporaryDirectory() as folder:
                cfg = distillation(pair, method, folder)
                batch = random_batch(cfg, (96, 96) if dry else (800, 1333))
                try:
                    measured = benchmark(cfg, batch, device, 2 if dry else 8, 1 if dry else 3).as_dict()
                except torch.cuda.OutOfMemoryError as error:
                    measured = dict(failed=str(error)[:200])
            found.setdefault(pair, {})[method] = measured
    return found


def waits(dry: bool) -> dict[str, Any]:
    """Counts how often a step waits for the device: as CUDA says it, and as the operators do."""
    import torch

    from mmrkd.engine.benchmark import build_distiller, random_batch
    from mmrkd.engine.step_counts import PACKAGE, count_step

    found = {}
    for method in METHODS:
        with tempfile.TemporaryDirectory() as folder:
            cfg = distillation('tiny', method, folder)
            batch = random_batch(cfg, (96, 96))
            distiller = build_distiller(cfg).to('cuda' if torch.cuda.is_available() else 'cpu').train()
        data = distiller.data_preprocessor(batch, True)
        for _ in range(2):  # what is made once is made
            distiller(**data, mode='loss')
        counts, counter = count_step(distiller, lambda: distiller(**data, mode='loss'))  # noqa: B023
        places = said_by_cuda(lambda: distiller(**data, mode='loss'))  # noqa: B023
        own = {place: number for place, number in places.items() if place.startswith(PACKAGE)}
        said = dict(by_cuda=sum(places.values()), by_cuda_own=own) if torch.cuda.is_available() else {}
        found[method] = dict(by_operators=counts.waits, by_operators_own=dict(counter.waits), **said)
    return found


def said_by_cuda(function: Any) -> Counter:
    """Returns place -> how often CUDA warns of a wait there; nothing without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return Counter()
    torch.cuda.set_sync_debug_mode('warn')
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            function()
    finally:
        torch.cuda.set_sync_debug_mode('default')
    return Counter(f'{w.filename}:{w.lineno}' for w in caught if 'synchronizing' in str(w.message))


def training(dry: bool) -> dict[str, Any]:
    """Trains two epochs on squares, as a user does, in mixed precision; returns the first and the last loss."""
    with tempfile.TemporaryDirectory() as folder:
        student, teacher, ckpt = squares(folder, 8 if dry else 64)
        command = [sys.executable, '-m', 'mmrkd', 'train', student, '--teacher', teacher, '--teacher-ckpt', ckpt]
        command += ['--method', 'era', '--amp', '--work-dir', osp.join(folder, 'run')]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        losses = [
            float(value) for value in re.findall(r'Epoch\(train\).*? loss: ([\d.]+|nan|inf)', done.stdout + done.stderr)
        ]
        saved = osp.exists(osp.join(folder, 'run', 'epoch_2.pth'))
    good = done.returncode == 0 and saved and len(losses) > 1
    return dict(losses=losses[:1] + losses[-1:], steps=len(losses), **({} if good else {'failed': done.stdout[-1500:]}))


PARTS = dict(tests=tests, steps=steps, waits=waits, training=training)


def distillation(pair: str, method: str, folder: str) -> Any:
    """Returns the config of one pair with one method and a teacher of random weights."""
    import torch
    from mmengine.config import Config
    from mmengine.hub import get_config
    from mmengine.registry import init_default_scope

    from mmrkd.models.teacher import load_model_config
    from mmrkd.registry import MODELS
    from mmrkd.testing import tiny_retinanet

    init_default_scope('mmdet')
    if pair == 'tiny':
        student, teacher = tiny_retinanet(), tiny_retinanet(12, 24)
        optimizer = dict(optimizer=dict(type='SGD', lr=0.001))
    else:
        student, teacher = (get_config(f'mmdet::{name}').model.to_dict() for name in PAIRS[pair])
        optimizer = dict(optimizer=dict(type='SGD', lr=0.001, momentum=0.9))
    for model in (student, teacher):
        model['backbone'].pop('init_cfg', None)
        model['_scope_'] = 'mmdet'
    ckpt = osp.join(folder, 'teacher.pth')
    torch.save(dict(state_dict=MODELS.build(load_model_config(teacher)).state_dict(), meta={}), ckpt)
    amp = torch.cuda.is_available()
    model = dict(
        type='mmrkd.Distiller',
        student=student,
        teacher=dict(cfg=teacher, ckpt=ckpt),
        methods=[dict(type=f'mmrkd.{method}')],
    )
    wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic') if amp else dict(type='OptimWrapper')
    batch_size = 2 if pair == 'tiny' else 8
    return Config(
        dict(model=model, optim_wrapper={**wrapper, **optimizer}, train_dataloader=dict(batch_size=batch_size))
    )


def squares(folder: str, images: int) -> tuple[str, str, str]:
    """Writes grey squares in COCO's form, configs of a student and a teacher on them, and the teacher's weights."""
    import mmcv
    import numpy as np
    import torch
    from mmengine.config import Config

    from mmrkd.testing import NUM_CLASSES, build_model, tiny_retinanet

    annotations, size = [], 96
    for index in range(images):
        label, x, y, side = index % NUM_CLASSES, 16 + 8 * (index % 2), 24, 40
        pixels = np.random.default_rng(index).integers(0, 20, (size, size, 3), dtype=np.uint8)
        pixels[y : y + side, x : x + side] += 50 * (label + 1)
        mmcv.imwrite(pixels, osp.join(folder, 'images', f'{index}.png'))
        box = dict(bbox=[x, y, side, side], area=side * side, iscrowd=0)
        annotations.append(dict(id=index, image_id=index, category_id=label, **box))
    names = [f'shade {label}' for label in range(NUM_CLASSES)]
    pictures = [dict(id=i, file_name=f'{i}.png', width=size, height=size) for i in range(images)]
    categories = [dict(id=i, name=name) for i, name in enumerate(names)]
    write(osp.join(folder, 'squares.json'), dict(images=pictures, annotations=annotations, categories=categories))
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=(size, size)),
        dict(type='PackDetInputs'),
    ]
    data = dict(type='CocoDataset', data_root=folder, ann_file='squares.json', data_prefix=dict(img='images/'))
    loader = dict(
        batch_size=4,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=True),
        dataset=dict(data, metainfo=dict(classes=names), pipeline=pipeline),
    )
    for name, model in (('student', tiny_retinanet()), ('teacher', tiny_retinanet(12, 24))):
        Config(
            dict(
                default_scope='mmdet',
                model=model,
                train_dataloader=loader,
                train_cfg=dict(by_epoch=True, max_epochs=2),
                optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)),
                default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
            )
        ).dump(osp.join(folder, f'{name}.py'))
    ckpt = osp.join(folder, 'teacher.pth')
    meta = dict(dataset_meta=dict(classes=names))
    torch.save(dict(state_dict=build_model(tiny_retinanet(12, 24), seed=1).state_dict(), meta=meta), ckpt)
    return osp.join(folder, 'student.py'), osp.join(folder, 'teacher.py'), ckpt


if __name__ == '__main__':
    main()
