"""Real processes: what DDP says about unused parameters shows only there."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmrkd.testing import build_model, paired, save_random_teacher, tiny_retinanet

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ('a', 'b', 'c', 'd')
CONFIG = """
default_scope = 'mmdet'
metainfo = dict(classes={classes})
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset', data_root='{root}', ann_file='train.json', data_prefix=dict(img='images/'),
        metainfo=metainfo, pipeline=pipeline))
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.001, momentum=0.9))
default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
randomness = dict(seed=0)
student = {student}
model = dict(type='mmrkd.Distiller', student=student, teacher={teacher}, methods={methods})
"""


@pytest.fixture
def dataset(tmp_path):
    """Four images with two boxes each, in COCO format."""
    (tmp_path / 'images').mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for index in range(4):
        cv2.imwrite(str(tmp_path / 'images' / f'{index}.png'), rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
        images.append(dict(id=index, file_name=f'{index}.png', width=64, height=64))
        for box in ([4, 4, 24, 20], [30, 24, 28, 32]):
            annotations.append(
                dict(
                    id=len(annotations),
                    image_id=index,
                    category_id=1 + len(annotations) % 4,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                )
            )
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    (tmp_path / 'train.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories))
    )
    return tmp_path


def free_port():
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


def dist_train(config, work_dir, processes=2, *options):
    env = {k: v for k, v in os.environ.items() if k not in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_PORT')}
    env.update(
        PATH=f'{Path(sys.executable).parent}{os.pathsep}{env["PATH"]}',
        PYTHON=sys.executable,
        PORT=str(free_port()),
        OMP_NUM_THREADS='1',
        PYTHONWARNINGS='ignore',
        CUDA_VISIBLE_DEVICES='',
    )
    command = ['bash', str(ROOT / 'tools' / 'dist_train.sh'), str(config), str(processes), '--work-dir', str(work_dir)]
    return subprocess.run([*command, *options], env=env, cwd=ROOT, capture_output=True, text=True, timeout=280)


@pytest.mark.slow
def test_two_processes_train_era_and_write_a_plain_checkpoint(dataset, tmp_path):
    teacher = save_random_teacher(tiny_retinanet(12, 24), tmp_path)
    methods = [dict(type='mmrkd.ERA'), dict(type='mmrkd.FitNets')]
    text = CONFIG.format(root=dataset, classes=CLASSES, student=tiny_retinanet(), teacher=teacher, methods=methods)
    assert 'find_unused_parameters' not in text
    (tmp_path / 'era.py').write_text(text)
    result = dist_train(tmp_path / 'era.py', tmp_path / 'run')
    output = result.stdout + result.stderr
    assert result.returncode == 0, output

    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert re.findall(r'Epoch\(train\)\s+\[1\]\[(\d+)/(\d+)\]', log) == [('1', '2'), ('2', '2')]  # 4 images, 2 x 1
    assert 'Distributed training: True' in log and 'GPU number: 2' in log
    assert 'era.loss_res_4: ' in log and 'fitnets.loss_feat: ' in log

    checkpoint = torch.load(tmp_path / 'run' / 'epoch_1.pth', weights_only=False)
    plain = build_model(tiny_retinanet())
    assert list(checkpoint['state_dict']) == list(plain.state_dict())
    plain.load_state_dict(checkpoint['state_dict'], strict=True)
    assert all(torch.isfinite(value).all() for value in checkpoint['state_dict'].values())
    assert any(key.startswith('methods.0.neck.branches') for key in checkpoint['mmrkd']['state_dict'])
    assert checkpoint['meta']['iter'] == 2


@pytest.mark.slow
def test_two_processes_train_in_phases(dataset, tmp_path):
    """Each phase has other parameters, and two steps: DDP complains of the ones without a gradient in the second."""
    teacher, student = save_random_teacher(tiny_retinanet(12, 24), tmp_path), paired(tiny_retinanet(), 6, 3)
    methods = [dict(type='mmrkd.ResidualKD', scheme='progressive', phase_epochs=(1, 2))]
    text = CONFIG.format(root=dataset, classes=CLASSES, student=student, teacher=teacher, methods=methods)
    (tmp_path / 'phased.py').write_text(text.replace('max_epochs=1', 'max_epochs=3'))
    result = dist_train(tmp_path / 'phased.py', tmp_path / 'run')
    assert result.returncode == 0, result.stdout + result.stderr

    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert 'GPU number: 2' in log
    entered = re.findall(r"phase '(\w+)' from epoch (\d)", log)
    assert entered == [('student', '1'), ('assistant', '2'), ('head', '3')]
    weights = [torch.load(tmp_path / f'run/epoch_{epoch}.pth', weights_only=False)['state_dict'] for epoch in (1, 2, 3)]
    moved = [{name for name in a if not torch.equal(a[name], b[name])} for a, b in zip(weights, weights[1:])]
    assert moved[0] and all('.assistant.' in name for name in moved[0])
    assert moved[1] and all(name.startswith(('neck', 'bbox_head')) for name in moved[1])
