"""Every config below configs/ loads, trains two iterations on generated data and predicts as each of its variants.

Models, classes, pipelines, optimisers, loops and evaluators are the config's own. Smaller are only the images and what
follows from their size: proposals, sampled RoIs, detections. Checkpoints are random weights; nothing is downloaded.
"""

import ast
import fnmatch
import json
import os.path as osp
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from config_runs import Recorder, dicts_in
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner
from PIL import Image

from mmrkd.engine.prepare import is_distillation, prepare_config
from mmrkd.models import Distiller, teacher
from mmrkd.registry import MODELS

ROOT = Path(__file__).resolve().parents[1]
FILES = (p for p in ROOT.glob('configs/*/*.py') if p.parent.name != '_base_')
# Those for mmseg and mmpose, which may be absent, are tested in test_segmentation_configs.py and test_pose_configs.py.
EXTRAS = ('_nuclei', '_cityscapes', '_beepose', '_coco-keypoints')
CONFIGS = sorted(str(p.relative_to(ROOT)) for p in FILES if not p.stem.endswith(EXTRAS))
DISTILLATIONS = [path for path in CONFIGS if path.split('/')[1] != 'baselines']
MODEL_NAME = r'[a-z0-9]+(?:[.-][a-z0-9]+)*'
SCHEDULE = r'(?P<gpus>\d+)xb(?P<batch>\d+)-(?:[a-z0-9]+-)*(?P<length>\d+)(?P<unit>[xe])'
IMAGE_SIZE = (160, 128)  # width, height
NUM_IMAGES = 4


@pytest.fixture(autouse=True)
def in_repository_root(monkeypatch):
    """Configs name their teachers' configs from there."""
    monkeypatch.chdir(ROOT)


def test_configs_are_found():
    assert len(CONFIGS) >= 9 and DISTILLATIONS


@pytest.mark.parametrize('path', CONFIGS)
def test_form(path):
    text = (ROOT / path).read_text()
    assert len(text.splitlines()) <= 40, 'a config has 40 lines at most'
    assert ast.get_docstring(ast.parse(text)), 'a config says in its first lines what it is'


@pytest.mark.parametrize('path', CONFIGS)
def test_name_says_what_is_inside(path):
    cfg = Config.fromfile(path)
    folder, name = path.split('/')[1], osp.splitext(osp.basename(path))[0]
    distillation = path in DISTILLATIONS
    assert is_distillation(cfg) == distillation
    if distillation:
        assert cfg.runner_type == 'mmrkd.Runner', 'it runs from the scripts of mmdet and mmpretrain, too'
    models = rf'{folder.replace("_", "-")}_{MODEL_NAME}_{MODEL_NAME}' if distillation else MODEL_NAME
    match = re.fullmatch(rf'{models}_{SCHEDULE}_(?P<dataset>[a-z0-9-]+)', name)
    assert match, '<method>_<teacher>_<student>_<batch-schedule>_<dataset>, or <model>_<batch-schedule>_<dataset>'
    assert int(match['batch']) == cfg.train_dataloader.batch_size
    epochs = int(match['length']) * (12 if match['unit'] == 'x' else 1)
    assert epochs == cfg.train_cfg.max_epochs
    assert osp.basename(leaf_dataset(cfg.train_dataloader.dataset).data_root.rstrip('/')) == match['dataset']


@pytest.mark.parametrize('path', DISTILLATIONS)
def test_teacher_checkpoint(path):
    """Addresses are those of the model zoo for just that config; paths name the baseline's last epoch."""
    sources = sources_of(Config.fromfile(path))
    assert sources
    for source in sources:
        if '::' in source.cfg:
            address = get_config(source.cfg, pretrained=True).model_path
            assert osp.basename(source.ckpt) == osp.basename(address)
            assert source.ckpt.startswith('https://')
        else:
            assert osp.relpath(source.cfg, ROOT) in CONFIGS
            epochs = Config.fromfile(source.cfg).train_cfg.max_epochs
            assert osp.basename(source.ckpt) == f'epoch_{epochs}.pth' and osp.dirname(source.ckpt)


@pytest.mark.parametrize('path', [path for path in CONFIGS if 'load_from' in (ROOT / path).read_text()])
def test_checkpoint_to_start_from(path):
    """Names the last epoch of another config."""
    folder, name = osp.split(Config.fromfile(path).load_from)
    start = next(other for other in CONFIGS if osp.basename(other) == f'{osp.basename(folder)}.py')
    assert name == f'epoch_{Config.fromfile(start).train_cfg.max_epochs}.pth'


@pytest.mark.parametrize('path', [path for path in DISTILLATIONS if 'phased' in path])
def test_each_phase_has_a_learning_rate(path):
    """Above all the last one, in which nothing else learns than what is behind the sum."""
    cfg, optimizer = Config.fromfile(path), torch.optim.SGD([torch.zeros(1)], lr=1)
    schedules = cfg.param_scheduler if isinstance(cfg.param_scheduler, list) else [cfg.param_scheduler]
    arguments = dict(optimizer=optimizer, epoch_length=100)
    schedules = [PARAM_SCHEDULERS.build(schedule, default_args=arguments) for schedule in schedules]
    rates = []
    for _ in range(cfg.train_cfg.max_epochs * 100):
        rates.append(optimizer.param_groups[0]['lr'])
        for schedule in schedules:
            schedule.step()
    starts = [epochs * 100 for epochs in cfg.model.methods[0].phase_epochs]
    assert all(rates[start] == pytest.approx(1) and rates[start - 1] < 0.01 for start in starts)
    assert max(rates) == pytest.approx(1) and rates[-1] < 0.01


@pytest.mark.parametrize('path', [path for path in DISTILLATIONS if path.startswith('configs/mtpd/')])
def test_the_schedule_begins_anew_with_the_second_teacher(path):
    """Warm-up and decay of both stages, in epochs of a thousand iterations."""
    cfg, optimizer = Config.fromfile(path), torch.optim.SGD([torch.zeros(1)], lr=1)
    arguments = dict(optimizer=optimizer, epoch_length=1000)
    schedules = [PARAM_SCHEDULERS.build(schedule, default_args=arguments) for schedule in cfg.param_scheduler]
    rates = []
    for done in range(1, cfg.train_cfg.max_epochs * 1000 + 1):
        rates.append(optimizer.param_groups[0]['lr'])
        for schedule in schedules:
            if done % 1000 == 0 or not schedule.by_epoch:
                schedule.step()
    for stage in (rates[:12000], rates[12000:]):
        assert stage[0] == pytest.approx(0.001, rel=1e-3)
        assert [stage[int(epoch * 1000)] for epoch in (0.5, 7.9, 8.5, 11.5)] == pytest.approx([1, 1, 0.1, 0.01])


DATASETS = sorted(p.name for p in ROOT.glob('configs/_base_/datasets/*.py') if 'train_dataloader' in p.read_text())


@pytest.mark.parametrize('name', DATASETS)
def test_datasets_are_below_one_folder(name, monkeypatch):
    monkeypatch.setenv('MMRKD_DATA', '/some/where')
    cfg = Config.fromfile(f'configs/_base_/datasets/{name}')
    for mode in ('train', 'val', 'test'):
        root = leaf_dataset(cfg[f'{mode}_dataloader'].dataset).data_root
        assert root.rstrip('/') == f'/some/where/{osp.splitext(name)[0].split("_")[0]}'  # the rest is a form of it
        ann_file = cfg.get(f'{mode}_evaluator', {}).get('ann_file', root)
        assert ann_file.startswith(root)


@pytest.mark.parametrize(
    'path', [pytest.param(path, marks=[pytest.mark.slow] if path.endswith('_coco.py') else []) for path in CONFIGS]
)
def test_trains_and_predicts(path, tmp_path, monkeypatch):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    variants = cfg.val_cfg.get('variants', ('student',))
    if is_distillation(cfg):
        generate_teacher(cfg, monkeypatch)
    shrink(cfg)
    generate_data(cfg, tmp_path)
    shorten(cfg, tmp_path)
    if cfg.load_from:
        cfg.load_from = generate_start(cfg, tmp_path)
    runner = Runner.from_cfg(prepare_config(cfg))
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()

    models = [runner.model]
    if is_distillation(cfg):
        models = [runner.model.student, *(teacher.model for teacher in runner.model.teachers.values())]
    for model in models:
        assert hasattr(model.data_preprocessor, 'mean'), 'the normalisation of the config did not reach the model'
    assert len(recorder.losses) == 2 * cfg.train_cfg.max_epochs
    phased = cfg.train_cfg.max_epochs > 1  # then each term has an epoch of its own
    for losses in recorder.losses:
        seen = {name for other in recorder.losses for name in other} if phased else set(losses)
        assert 'loss' in seen
        for term in expected_terms(runner.model):
            assert fnmatch.filter(seen, term), f'no {term} in {sorted(seen)}'
        assert all(torch.isfinite(torch.as_tensor(value)).all() for value in losses.values()), losses
    assert len(recorder.metrics) == 1
    own = {name for name in recorder.metrics[0] if not name.startswith(tuple(f'{v}/' for v in variants))}
    assert own, 'the student has no metric'
    for variant in set(variants) - {'student'}:
        assert {name for name in recorder.metrics[0] if name.startswith(f'{variant}/')} == {
            f'{variant}/{k}' for k in own
        }
    assert all(np.isfinite(value) for value in recorder.metrics[0].values())
    assert set(cfg.test_cfg.get('variants', ())) <= set(getattr(runner.model, 'variants', ()))


def expected_terms(model) -> set[str]:
    """Patterns of the terms that a weight of some method gives (``DistillMethod.weights``)."""
    methods = model.methods.items() if isinstance(model, Distiller) else ()
    terms = set()
    for name, method in methods:
        assert method.weights, f'{name} declares no weights'
        for weight, patterns in method.weights.items():
            first = patterns if isinstance(patterns, str) else patterns[0]
            terms |= {f'{name}.{first}'} if getattr(method, weight) else set()
    assert terms or not methods
    return terms


def sources_of(cfg: Config) -> list[ConfigDict]:
    """Where the teachers of a distillation come from."""
    return [*filter(None, [cfg.model.get('teacher')]), *(cfg.model.get('teachers') or {}).values()]


def generate_teacher(cfg: Config, monkeypatch) -> None:
    """Puts random weights, of a model of the teacher's own config, in the place of each checkpoint."""
    models = {}
    for source in sources_of(cfg):
        source.cfg = models[source.ckpt] = teacher.load_model_config(source.cfg)

    def load_checkpoint_file(path: str, *_args: Any) -> dict:
        return dict(state_dict=MODELS.build(teacher.load_model_config(models[path])).state_dict())

    monkeypatch.setattr(teacher, 'load_checkpoint_file', load_checkpoint_file)


def generate_start(cfg: Config, folder: Path) -> str:
    """Writes random weights that the config can start from."""
    torch.save(dict(state_dict=MODELS.build(teacher.load_model_config(cfg)).state_dict()), folder / 'start.pth')
    return str(folder / 'start.pth')


def shrink(cfg: Config) -> None:
    """Small images, few proposals, RoIs and detections; no pretrained weights; scores that keep every detection."""
    for node in dicts_in(cfg._cfg_dict):
        if (node.get('init_cfg') or {}) and 'Pretrained' in str(node.init_cfg):
            node.init_cfg = None
        if node.get('type') == 'RandomSampler':
            node.num = 32
        if node.get('type') in ('Resize', 'RandomResize'):
            node.scale = [IMAGE_SIZE] * 2 if isinstance(node.scale, list) else IMAGE_SIZE
        for name, value in dict(nms_pre=100, max_per_img=50, score_thr=0.0).items():
            if name in node:
                node[name] = value


def shorten(cfg: Config, work_dir: Path) -> None:
    """One epoch of two iterations in this process, or one for each phase or teacher; one validation, nothing saved."""
    cfg.work_dir, cfg.log_level, cfg.diagnosis = str(work_dir / 'work_dir'), 'ERROR', False
    methods = cfg.model.get('methods', ())
    phased = [method for method in methods if method.get('phase_epochs')]
    for method in phased:
        method.phase_epochs = (1, 2)
    for method in [method for method in methods if method.get('schedule') == 'first']:
        method.head_epochs = 1
        phased.append(method)
    for hook in cfg.get('custom_hooks', ()):
        if 'warmup' in hook:
            hook.warmup = 0  # in the first iteration the terms would have no weight yet
    sequences = [hook for hook in cfg.get('custom_hooks', ()) if hook.type == 'mmrkd.TeacherSequenceHook']
    for hook in sequences:
        hook.at = list(range(1, len(hook.order)))
    for schedule in cfg.param_scheduler if isinstance(cfg.param_scheduler, list) else ():
        if schedule.get('convert_to_iter_based') and schedule.get('begin', 0) > 1:
            schedule.end = schedule.begin + 1  # a small fraction of two iterations is none
    epochs = 3 if phased else max([len(hook.order) for hook in sequences], default=1)
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)
    cfg.default_hooks.checkpoint = None
    for mode in ('train', 'val', 'test'):
        cfg[f'{mode}_dataloader'].update(num_workers=0, persistent_workers=False, batch_size=2)


def generate_data(cfg: Config, folder: Path) -> None:
    """Writes images and annotations where the config expects them, below ``folder`` instead of its data root."""
    root = leaf_dataset(cfg.train_dataloader.dataset).data_root
    new_root = folder / 'data'
    for node in dicts_in(cfg._cfg_dict):
        for name in ('data_root', 'ann_file'):
            if isinstance(node.get(name), str) and node[name].startswith(root):
                node[name] = f'{new_root}/{node[name][len(root) :].lstrip("/")}'
    for mode in ('train', 'val', 'test'):
        dataset = leaf_dataset(cfg[f'{mode}_dataloader'].dataset)
        if cfg.default_scope == 'mmdet':
            write_coco(dataset, new_root)
        else:
            write_class_folders(dataset, new_root, cfg)


def write_coco(dataset: ConfigDict, root: Path) -> None:
    """Random images with three boxes each, as rectangles and as polygons."""
    from mmdet.registry import DATASETS

    classes = (dataset.get('metainfo') or DATASETS.get(dataset.type).METAINFO)['classes']
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for image_id in range(NUM_IMAGES):
        name = f'{image_id:03}.jpg'
        write_image(root / dataset.data_prefix.img / name, IMAGE_SIZE, rng)
        images.append(dict(id=image_id, file_name=name, width=IMAGE_SIZE[0], height=IMAGE_SIZE[1]))
        for _ in range(3):
            x, y, w, h = (float(v) for v in rng.integers([0, 0, 40, 40], [90, 60, 70, 65]))
            polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
            label = int(rng.integers(len(classes))) + 1
            annotations.append(
                dict(id=len(annotations), image_id=image_id, category_id=label, bbox=[x, y, w, h], area=w * h)
                | dict(iscrowd=0, segmentation=[polygon])
            )
    categories = [dict(id=index, name=name) for index, name in enumerate(classes, start=1)]
    path = root / dataset.ann_file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))


def write_class_folders(dataset: ConfigDict, root: Path, cfg: Config) -> None:
    """A folder for each class, the first ones with an image."""
    split = root / (dataset.get('data_prefix') or dataset.split)
    num_classes = cfg.data_preprocessor.num_classes
    rng = np.random.default_rng(0)
    for index in range(num_classes):
        (split / f'n{index:08}').mkdir(parents=True, exist_ok=True)
    for index in range(NUM_IMAGES):
        size = (32, 32) if 'cifar' in dataset.data_root else IMAGE_SIZE
        write_image(split / f'n{index:08}' / f'{index}.jpg', size, rng)


def write_image(path: Path, size: tuple, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)


def leaf_dataset(dataset: ConfigDict) -> ConfigDict:
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset
