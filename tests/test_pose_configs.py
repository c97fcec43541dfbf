"""Every config for mmpose loads, trains two iterations on generated data and predicts as each of its variants.

Models, codecs, pipelines, optimisers, loops and evaluators are the config's own. Few are only the pictures. The weights
are random; nothing is downloaded.
"""

import ast
import importlib.util
import json
import os.path as osp
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from config_runs import Recorder, dicts_in
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image

from mmrkd.engine.prepare import is_distillation, prepare_config
from mmrkd.models import teacher
from mmrkd.registry import MODELS

pytest.importorskip('mmpose', reason='the extra `pose` is not installed')
ROOT = Path(__file__).resolve().parents[1]
NAMES = ('_beepose', '_coco-keypoints')
CONFIGS = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob('configs/*/*.py') if p.stem.endswith(NAMES))
CONFIGS = [path for path in CONFIGS if '/_base_/' not in path]
DISTILLATIONS = [path for path in CONFIGS if path.split('/')[1] != 'baselines']
SCHEDULE = r'(?P<gpus>\d+)xb(?P<batch>\d+)-(?:[a-z0-9]+-)*(?P<length>\d+)e'
FOLDERS = {'coco-keypoints': 'coco'}
# One of each kind of head, of each place of the features, and in phases; the others take the same paths.
QUICK = (
    'era_heatmap-r18w32_heatmap-r18w8_1xb16-penultimate-120e_beepose',
    'kd_rtmcc-r18w32_rtmcc-r18w8_1xb16-120e_beepose',
    'dwpose_rtmcc-r18w8_rtmcc-r18w8_1xb16-second-30e_beepose',
)


@pytest.fixture(autouse=True)
def in_repository_root(monkeypatch):
    """Configs name their teachers' configs from there."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize('path', CONFIGS)
def test_form_and_name(path):
    text = (ROOT / path).read_text()
    assert len(text.splitlines()) <= 40 and ast.get_docstring(ast.parse(text))
    cfg, folder, name = Config.fromfile(path), path.split('/')[1], osp.splitext(osp.basename(path))[0]
    distillation = path in DISTILLATIONS
    assert is_distillation(cfg) == distillation
    assert not distillation or cfg.runner_type == 'mmrkd.Runner'
    model = r'[a-z0-9]+(?:[.-][a-z0-9]+)*'
    models = rf'{folder.replace("_", "-")}_{model}_{model}' if distillation else model
    match = re.fullmatch(rf'{models}_{SCHEDULE}_(?P<dataset>[a-z0-9-]+)', name)
    assert match and int(match['batch']) == cfg.train_dataloader.batch_size
    assert int(match['length']) == cfg.train_cfg.max_epochs
    root = osp.basename(cfg.train_dataloader.dataset.data_root.rstrip('/'))
    assert root == FOLDERS.get(match['dataset'], match['dataset'])


@pytest.mark.parametrize('path', CONFIGS)
def test_the_targets_are_those_of_the_student_and_of_its_teacher(path):
    cfg = Config.fromfile(path)
    student = cfg.model.student if is_distillation(cfg) else cfg.model
    encoders = [step.encoder for step in cfg.train_dataloader.dataset.pipeline if step.type == 'GenerateTarget']
    codecs = [student.head.decoder]
    if 'teacher' in cfg.model:
        codecs.append(teacher.load_model_config(cfg.model.teacher.cfg).head.decoder)
    assert len(encoders) == 1 and all(_plain(codec) == _plain(encoders[0]) for codec in codecs)


@pytest.mark.parametrize('path', [path for path in DISTILLATIONS if '_none_' not in path])
def test_the_teacher_is_that_of_the_model_zoo_or_was_trained_here(path):
    source = Config.fromfile(path).model.teacher
    if '::' in source.cfg:
        assert source.ckpt == get_config(source.cfg, pretrained=True).model_path
    else:
        assert osp.relpath(source.cfg, ROOT) in CONFIGS
        epochs = {int(re.search(r'-(\d+)e_', trained)[1]) for trained in (source.cfg, osp.dirname(source.ckpt) + '_')}
        assert len(epochs) == 1 and osp.basename(source.ckpt) == f'epoch_{epochs.pop()}.pth'
        assert osp.basename(osp.dirname(source.ckpt)) in {Path(p).stem for p in CONFIGS}


@pytest.mark.parametrize(
    'path', [pytest.param(p, marks=[] if Path(p).stem in QUICK else [pytest.mark.slow]) for p in CONFIGS]
)
def test_trains_and_predicts(path, tmp_path, monkeypatch):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    if 'teacher' in cfg.model:
        generate_teacher(cfg, monkeypatch)
    generate_data(cfg, tmp_path)
    shorten(cfg, tmp_path)
    runner = Runner.from_cfg(prepare_config(cfg))
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()
    assert len(recorder.losses) == 2 and len(recorder.metrics) == 1
    for losses in recorder.losses:
        assert 'loss_kpt' in losses and all(torch.isfinite(torch.as_tensor(v)).all() for v in losses.values())
        for name in getattr(runner.model, 'methods', ()):
            assert any(term.startswith(f'{name}.loss') for term in losses)
    for variant in cfg.val_cfg.get('variants', ('student',)):
        reported = 'coco/AP' if variant == 'student' else f'{variant}/coco/AP'
        assert np.isfinite(recorder.metrics[0][reported])


def _plain(codec):
    return json.loads(json.dumps(dict(codec, input_size=list(codec['input_size']))))


def generate_teacher(cfg, monkeypatch):
    """Puts random weights, of a model of the teacher's own config, in the place of the checkpoint."""
    model_cfg = without_files(teacher.load_model_config(cfg.model.teacher.cfg))
    cfg.model.teacher.cfg = model_cfg

    def load_checkpoint_file(*_args):
        return dict(state_dict=MODELS.build(teacher.load_model_config(model_cfg)).state_dict())

    monkeypatch.setattr(teacher, 'load_checkpoint_file', load_checkpoint_file)


def without_files(cfg):
    """No pretrained weights, norms of one process."""
    for node in dicts_in(cfg):
        if 'Pretrained' in str(node.get('init_cfg')):
            node.pop('init_cfg')
        if node.get('type') == 'SyncBN':
            node['type'] = 'BN'
        for key, steps in node.items():  # mmpose's own configs want a package that it does not require
            if isinstance(steps, list) and importlib.util.find_spec('albumentations') is None:
                node[key] = [s for s in steps if not (isinstance(s, dict) and s.get('type') == 'Albumentation')]
    return cfg


def shorten(cfg, work_dir):
    """Two iterations in this process, one validation, nothing saved."""
    without_files(cfg._cfg_dict)
    cfg.work_dir, cfg.log_level, cfg.diagnosis = str(work_dir / 'work_dir'), 'ERROR', False
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.default_hooks.checkpoint = None
    cfg.pop('visualizer', None)
    cfg.default_hooks.pop('visualization', None)
    for mode in ('train', 'val', 'test'):
        cfg[f'{mode}_dataloader'].update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.batch_size = cfg.val_dataloader.batch_size = 2


def generate_data(cfg, folder):
    """Writes four pictures with a box and keypoints each where the config expects them, below ``folder``."""
    rng, count = np.random.default_rng(0), None
    for mode in ('train', 'val', 'test'):
        dataset, evaluator = cfg[f'{mode}_dataloader'].dataset, cfg.get(f'{mode}_evaluator')
        dataset.data_root, dataset.bbox_file = str(folder), None
        student = cfg.model.get('student', cfg.model)
        count = student.head.out_channels
        images, annotations = [], []
        for index in range(4):
            path = folder / dataset.data_prefix.img / f'{index}.jpg'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (90, 80, 3), dtype=np.uint8)).save(path)
            images.append(dict(id=index, file_name=path.name, width=80, height=90))
            points = np.concatenate([rng.integers(10, 70, (count, 2)), np.full((count, 1), 2)], axis=1)
            whole = dict(bbox=[5, 5, 70, 80], area=5600, iscrowd=0, category_id=1, num_keypoints=count)
            annotations.append(dict(whole, id=index, image_id=index, keypoints=points.flatten().tolist()))
        file = folder / dataset.ann_file
        file.parent.mkdir(parents=True, exist_ok=True)
        categories = [dict(id=1, name='one')]
        file.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
        if evaluator is not None:
            evaluator.ann_file = str(file)
