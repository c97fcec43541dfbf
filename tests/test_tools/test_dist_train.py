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

from mmrkd.stack import release
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
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset', data_root='{root}', ann_file='train.json', data_prefix=dict(img='images/'),
        metainfo=metainfo, pipeline=pipeline))
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset', data_root='{root}', ann_file='train.json', data_prefix=dict(img='images/'),
        metainfo=metainfo, pipeline=test_pipeline, test_mode=True))
test_evaluator = dict(type='CocoMetric', metric='bbox', ann_file='{root}/train.json')
test_cfg = dict(type='mmrkd.VariantTestLoop', variants={variants})
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.001, momentum=0.9))
default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
randomness = dict(seed=0)
student = {student}
model = dict(type='mmrkd.Distiller', student=student, teacher={teacher}, methods={methods})
"""


@pytest.fixture
def dataset(tmp_path):
    """Five images with two boxes each, in COCO format."""
    (tmp_path / 'images').mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for index in range(5):
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


def launch(script, *arguments, succeeds=True):
    """Runs a script of tools/ and returns what it printed. One that hangs runs into the time limit."""
    env = {k: v for k, v in os.environ.items() if k not in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_PORT')}
    env.update(
        PATH=f'{Path(sys.executable).parent}{os.pathsep}{env["PATH"]}',
        PYTHON=sys.executable,
        PORT=str(free_port()),
        OMP_NUM_THREADS='1',
        PYTHONWARNINGS='ignore',
        CUDA_VISIBLE_DEVICES='',
    )
    command = ['bash', str(ROOT / 'tools' / script), *map(str, arguments)]
    result = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert (result.returncode == 0) == succeeds, result.stdout + result.stderr
    return result.stdout + result.stderr


HINT = dict(type='mmrkd.FeatureMSELoss')
METHODS = [
    dict(type='mmrkd.ERA'),
    dict(type='mmrkd.FitNets'),
    dict(type='mmrkd.SemiOnlineKD', split='layer4', feature_loss=HINT),
    dict(type='mmrkd.KD'),
    dict(type='mmrkd.DeepMutualLearning'),
]
TERMS = [
    'era.loss_res_2',
    'fitnets.loss_feat',
    'semionlinekd.loss_bridge_student',
    'kd.loss_kd',
    'deepmutuallearning.loss_peer_student',
]
TRAINED = [
    'methods.era.neck.branches',
    'methods.semionlinekd.bridge.model.backbone.layer4',
    'methods.deepmutuallearning.peer.model.backbone.conv1',
]


@pytest.mark.slow
def test_two_processes_train_and_write_a_plain_checkpoint(dataset, tmp_path):
    """All kinds of methods at once: DDP would complain of the unused parameters of any."""
    teacher = save_random_teacher(tiny_retinanet(12, 24), tmp_path)
    models = dict(
        student=tiny_retinanet(), teacher=teacher, methods=METHODS, variants=('student', 'integrated', 'bridge', 'peer')
    )
    text = CONFIG.format(root=dataset, classes=CLASSES, **models)
    assert 'find_unused_parameters' not in text
    (tmp_path / 'config.py').write_text(text)
    launch('dist_train.sh', tmp_path / 'config.py', 2, '--work-dir', tmp_path / 'run')

    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert re.findall(r'Epoch\(train\)\s+\[1\]\[(\d+)/(\d+)\]', log) == [('1', '2'), ('2', '2')]  # 3 images: 2 and 1
    assert 'Distributed training: True' in log and 'GPU number: 2' in log
    assert all(f'{term}: ' in log for term in TERMS)

    checkpoint = torch.load(tmp_path / 'run' / 'epoch_1.pth', weights_only=False)
    plain = build_model(tiny_retinanet())
    assert list(checkpoint['state_dict']) == list(plain.state_dict())
    plain.load_state_dict(checkpoint['state_dict'], strict=True)
    assert all(torch.isfinite(value).all() for value in checkpoint['state_dict'].values())
    kept = list(checkpoint['mmrkd']['state_dict'])
    assert all(any(key.startswith(part) for key in kept) for part in TRAINED)
    assert checkpoint['meta']['iter'] == 2
    assert len(checkpoint['mmrkd_run']['random']) == 2

    output = launch('dist_test.sh', tmp_path / 'config.py', tmp_path / 'run' / 'epoch_1.pth', 2, '--work-dir', tmp_path)
    for variant in ('integrated', 'bridge', 'peer'):
        assert len(re.findall(rf'Epoch\(test\) .* {variant}/coco/bbox_mAP: ', output)) == 1  # one process reports
    assert re.search(r'Epoch\(test\) .* coco/bbox_mAP: ', output)


def test_slurm_gets_the_resources_and_the_command(tmp_path, monkeypatch):
    """What srun is asked to run; slurm itself is not here."""
    (tmp_path / 'srun').write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    (tmp_path / 'srun').chmod(0o755)
    monkeypatch.setenv('GPUS', '4')
    monkeypatch.setenv('SRUN_ARGS', '--quotatype=spot --time=60')
    monkeypatch.setenv('PATH', f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')
    words = launch('slurm_train.sh', 'part', 'job', 'config.py', 'work dir', '--amp').splitlines()
    command = words.index(sys.executable)
    assert words[command:] == [
        *(sys.executable, '-u', str(ROOT / 'tools/train.py')),
        *('config.py', '--work-dir=work dir', '--launcher', 'slurm', '--amp'),
    ]
    assert {'-p', 'part', '--job-name=job', '--ntasks=4', '--ntasks-per-node=4', '--gres=gpu:4'} <= set(words[:command])
    assert words[command - 2 : command] == ['--quotatype=spot', '--time=60']


@pytest.mark.slow
def test_if_one_process_fails_the_others_end_too(dataset, tmp_path):
    """One of them misses an image while the others wait for its gradients."""
    teacher = save_random_teacher(tiny_retinanet(12, 24), tmp_path)
    models = dict(
        student=tiny_retinanet(), teacher=teacher, methods=[dict(type='mmrkd.ERA')], variants=('student', 'integrated')
    )
    (tmp_path / 'era.py').write_text(CONFIG.format(root=dataset, classes=CLASSES, **models))
    (dataset / 'images' / '3.png').unlink()
    assert '3.png' in launch('dist_train.sh', tmp_path / 'era.py', 2, '--work-dir', tmp_path / 'run', succeeds=False)
    assert not (tmp_path / 'run' / 'epoch_1.pth').exists()


@pytest.mark.slow
def test_two_processes_train_in_phases(dataset, tmp_path):
    """Each phase has other parameters, and two steps: DDP complains of the ones without a gradient in the second."""
    teacher, student = save_random_teacher(tiny_retinanet(12, 24), tmp_path), paired(tiny_retinanet(), 6, 3)
    methods = [dict(type='mmrkd.ResidualKD', scheme='progressive', phase_epochs=(1, 2))]
    models = dict(student=student, teacher=teacher, methods=methods, variants=('student', 'student_alone'))
    text = CONFIG.format(root=dataset, classes=CLASSES, **models)
    (tmp_path / 'phased.py').write_text(text.replace('max_epochs=1', 'max_epochs=3'))
    launch('dist_train.sh', tmp_path / 'phased.py', 2, '--work-dir', tmp_path / 'run')

    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert 'GPU number: 2' in log
    entered = re.findall(r"phase '(\w+)' from epoch (\d)", log)
    assert entered == [('student', '1'), ('assistant', '2'), ('head', '3')]
    weights = [torch.load(tmp_path / f'run/epoch_{epoch}.pth', weights_only=False)['state_dict'] for epoch in (1, 2, 3)]
    moved = [{name for name in a if not torch.equal(a[name], b[name])} for a, b in zip(weights, weights[1:])]
    assert moved[0] and all('.assistant.' in name for name in moved[0])
    assert moved[1] and all(name.startswith(('neck', 'bbox_head')) for name in moved[1])


@pytest.mark.slow
@pytest.mark.skipif(release(torch.__version__) < (2, 6, 0), reason='older torch runs FSDP on GPUs only')
def test_two_processes_train_sharded_and_resume(dataset, tmp_path):
    """FSDP through mmengine's strategy. On a GPU ``state_dict_cfg='full'`` and no device are enough."""
    teacher = save_random_teacher(tiny_retinanet(12, 24), tmp_path)
    models = dict(
        student=tiny_retinanet(), teacher=teacher, methods=[dict(type='mmrkd.ERA')], variants=('student', 'integrated')
    )
    sharded = """
runner_type = 'FlexibleRunner'
strategy = dict(
    type='mmrkd.FSDPStrategy',
    model_wrapper=dict(type='MMFullyShardedDataParallel', use_orig_params=True, device_id='cpu'),
    state_dict_cfg=dict(
        state_dict_type='FULL_STATE_DICT',
        state_dict_config=dict(type='FullStateDictConfig'),
        optim_state_dict_config=dict(type='FullOptimStateDictConfig')))
"""
    text = CONFIG.format(root=dataset, classes=CLASSES, **models) + sharded

    def train(folder, epochs, *arguments):
        (tmp_path / 'config.py').write_text(text.replace('max_epochs=1', f'max_epochs={epochs}'))
        launch('dist_train.sh', tmp_path / 'config.py', 2, '--work-dir', tmp_path / folder, *arguments)
        return torch.load(tmp_path / folder / f'epoch_{epochs}.pth', weights_only=False)

    whole = train('whole', 2)
    train('halves', 1)
    halves = train('halves', 2, '--resume')
    plain = build_model(tiny_retinanet())
    assert sorted(whole['state_dict']) == sorted(plain.state_dict())
    plain.load_state_dict(whole['state_dict'], strict=True)
    for name in whole['state_dict']:
        assert torch.equal(whole['state_dict'][name], halves['state_dict'][name]), name
    methods = [checkpoint['mmrkd']['state_dict'] for checkpoint in (whole, halves)]
    assert methods[0] and all(torch.equal(value, methods[1][name]) for name, value in methods[0].items())
