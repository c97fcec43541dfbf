"""Every config for mmseg loads, trains two iterations on generated data and predicts as each of its variants.

Models, classes, pipelines, optimisers, loops and evaluators are the config's own. Smaller are only the images. The
weights are random; nothing is downloaded.
"""

import ast
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

pytest.importorskip('mmseg', reason='the extra `segmentation` is not installed')
ROOT = Path(__file__).resolve().parents[1]
NAMES = ('_nuclei', '_cityscapes')
CONFIGS = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob('configs/*/*.py') if p.stem.endswith(NAMES))
DISTILLATIONS = [path for path in CONFIGS if path.split('/')[1] != 'baselines']
SCHEDULE = r'(?P<gpus>\d+)xb(?P<batch>\d+)-(?:[a-z0-9]+-)*(?P<length>\d+)(?P<unit>[ek])'
SIZE = (64, 128)  # height, width


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
    lengths = dict(e=cfg.train_cfg.get('max_epochs'), k=cfg.train_cfg.get('max_iters', 0) / 1000)
    assert int(match['length']) == lengths[match['unit']]
    assert osp.basename(cfg.train_dataloader.dataset.data_root.rstrip('/')) == match['dataset']


@pytest.mark.parametrize('path', [path for path in DISTILLATIONS if '_none_' not in path])
def test_the_teacher_is_that_of_the_model_zoo_or_a_baseline(path):
    source = Config.fromfile(path).model.teacher
    if '::' in source.cfg:
        assert osp.basename(source.ckpt) == osp.basename(get_config(source.cfg, pretrained=True).model_path)
    else:
        assert osp.relpath(source.cfg, ROOT) in CONFIGS
        assert osp.basename(source.ckpt) == f'epoch_{Config.fromfile(source.cfg).train_cfg.max_epochs}.pth'


@pytest.mark.parametrize(
    'path', [pytest.param(p, marks=[pytest.mark.slow] if p.endswith('_cityscapes.py') else []) for p in CONFIGS]
)
def test_trains_and_predicts(path, tmp_path, monkeypatch):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    if is_distillation(cfg):
        generate_teacher(cfg, monkeypatch)
    shrink(cfg)
    generate_data(cfg, tmp_path)
    shorten(cfg, tmp_path)
    runner = Runner.from_cfg(prepare_config(cfg))
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()
    assert len(recorder.losses) == 2 and len(recorder.metrics) == 1
    for losses in recorder.losses:
        assert 'decode.loss_ce' in losses and all(torch.isfinite(torch.as_tensor(v)).all() for v in losses.values())
        for name in getattr(runner.model, 'methods', ()):
            assert any(term.startswith(f'{name}.loss') for term in losses)
    for variant in cfg.val_cfg.get('variants', ('student',)):
        reported = 'mIoU' if variant == 'student' else f'{variant}/mIoU'
        assert np.isfinite(recorder.metrics[0][reported])


def generate_teacher(cfg, monkeypatch):
    """Puts random weights, of a model of the teacher's own config, in the place of the checkpoint."""
    if 'teacher' not in cfg.model:
        return
    model_cfg = teacher.load_model_config(cfg.model.teacher.cfg)
    cfg.model.teacher.cfg = model_cfg
    shrink(Config(dict(model=model_cfg)))

    def load_checkpoint_file(*_args):
        return dict(state_dict=MODELS.build(teacher.load_model_config(model_cfg)).state_dict())

    monkeypatch.setattr(teacher, 'load_checkpoint_file', load_checkpoint_file)


def shrink(cfg):
    """Small images and crops, norms of one process, no pretrained weights."""
    for node in dicts_in(cfg._cfg_dict):
        if node.get('type') == 'SyncBN':
            node.type = 'BN'
        if 'pretrained' in node:
            node.pretrained = None
        if node.get('type') == 'SegDataPreProcessor' or 'seg_pad_val' in node:
            node.size = SIZE
        if node.get('type') == 'RandomCrop':
            node.crop_size = SIZE
        if node.get('type') in ('Resize', 'RandomResize'):
            node.scale = SIZE[::-1]


def shorten(cfg, work_dir):
    """Two iterations in this process, one validation, nothing saved."""
    cfg.work_dir, cfg.log_level, cfg.diagnosis = str(work_dir / 'work_dir'), 'ERROR', False
    if 'max_epochs' in cfg.train_cfg:
        cfg.train_cfg.update(max_epochs=1, val_interval=1)
    else:
        cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.default_hooks.checkpoint = None
    cfg.pop('visualizer', None)
    cfg.default_hooks.pop('visualization', None)
    for mode in ('train', 'val', 'test'):
        cfg[f'{mode}_dataloader'].update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.batch_size = 2


def generate_data(cfg, folder):
    """Writes images and labels where the config expects them, below ``folder``."""
    rng = np.random.default_rng(0)
    for mode in ('train', 'val', 'test'):
        dataset = cfg[f'{mode}_dataloader'].dataset
        dataset.data_root = str(folder / 'data')
        city = dataset.type == 'CityscapesDataset'
        image, label = ('_leftImg8bit.png', '_gtFine_labelTrainIds.png') if city else ('.jpg', '.png')
        for name in range(4):
            for kind, suffix in (('img_path', image), ('seg_map_path', label)):
                path = folder / 'data' / dataset.data_prefix[kind] / f'{name}{suffix}'
                path.parent.mkdir(parents=True, exist_ok=True)
                shape = (*SIZE, 3) if kind == 'img_path' else SIZE
                pixels = rng.integers(0, 256 if kind == 'img_path' else 3, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(path)
