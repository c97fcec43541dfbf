"""What every test starts from: one thread, fresh OpenMMLab globals, the same seeds, the environment as it was."""

import json
import os
import random
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import Runner
from mmengine.utils import ManagerMixin

from mmrkd.testing import NUM_CLASSES, build_model, tiny_retinanet

torch.set_num_threads(1)
TEST_REGISTRIES = (DATASETS, HOOKS, METRICS, MODELS)


def _subclasses(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


@pytest.fixture(autouse=True)
def fresh_globals():
    """Default scope, loggers, message hubs and visualisers are global in mmengine; a test leaves none behind.

    A logger also keeps the stream that was ``sys.stdout`` when it was made, which pytest closes after the test.
    """
    before = {cls: dict(cls._instance_dict) for cls in _subclasses(ManagerMixin)}
    registered = {registry: dict(registry._module_dict) for registry in TEST_REGISTRIES}
    for cls in before:
        cls._instance_dict.clear()
    yield
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()
    for cls in _subclasses(ManagerMixin):
        cls._instance_dict.clear()
        cls._instance_dict.update(before.get(cls, {}))
    for registry, modules in registered.items():
        registry._module_dict.clear()
        registry._module_dict.update(modules)


@pytest.fixture(scope='session', autouse=True)
def configs_as_they_are():
    """A runner writes its config four times; to lay it out prettily takes yapf a second each."""
    with mock.patch('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True)):
        yield


@pytest.fixture(autouse=True)
def same_environment():
    """Runners and tools set variables such as ``LOCAL_RANK`` and ``OMP_NUM_THREADS``."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture(autouse=True)
def same_seed():
    """A test that draws numbers draws the same ones, alone or in any order."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


class Killed(BaseException):
    """Nothing in a run catches it."""


@pytest.fixture
def killed():
    """Registers a hook ``KillBefore``, which ends a run before an iteration; returns what it raises."""

    @HOOKS.register_module()
    class KillBefore(Hook):
        priority = 'LOWEST'

        def __init__(self, iteration):
            self.iteration = iteration

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == self.iteration:
                raise Killed

    return Killed


SHADES = tuple(f'shade {i}' for i in range(NUM_CLASSES))


def _write_squares(folder, num_images=8, size=96):
    """Writes a set in COCO format: on each image one grey square, whose shade is its class."""
    import mmcv

    images, annotations = [], []
    for index in range(num_images):
        label, x, y, side = index % NUM_CLASSES, 16 + 8 * (index % 2), 24, 40
        pixels = np.random.default_rng(index).integers(0, 20, (size, size, 3), dtype=np.uint8)
        pixels[y : y + side, x : x + side] += 50 * (label + 1)
        mmcv.imwrite(pixels, os.path.join(folder, 'images', f'{index}.png'))
        images.append(dict(id=index, file_name=f'{index}.png', width=size, height=size))
        annotations.append(
            dict(id=index, image_id=index, category_id=label, bbox=[x, y, side, side], area=side * side, iscrowd=0)
        )
    categories = [dict(id=i, name=name) for i, name in enumerate(SHADES)]
    with open(os.path.join(folder, 'squares.json'), 'w') as file:
        json.dump(dict(images=images, annotations=annotations, categories=categories), file)


def _squares_cfg(folder, model):
    """Config of a run of two iterations on the squares, as a user has one."""
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=(96, 96)),
        dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
    ]
    dataset = dict(
        type='CocoDataset',
        data_root=str(folder),
        ann_file='squares.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=SHADES),
        pipeline=pipeline,
        serialize_data=False,  # packing calls the garbage collector, which takes longer than all the rest
    )
    loader = dict(batch_size=4, num_workers=0)
    return Config(
        dict(
            default_scope='mmdet',
            model=model,
            train_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=True), dataset=dataset),
            val_dataloader=dict(
                loader, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(dataset, test_mode=True)
            ),
            val_evaluator=dict(type='CocoMetric', metric='bbox', ann_file=os.path.join(folder, 'squares.json')),
            train_cfg=dict(by_epoch=True, max_epochs=1, val_interval=1),
            val_cfg=dict(),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)),
            default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
            randomness=dict(seed=3),
        )
    )


@pytest.fixture(scope='session')
def squares(tmp_path_factory):
    """A detection set, configs of a student and a teacher on it, and a teacher that has learnt something, as files."""
    folder = tmp_path_factory.mktemp('squares')
    _write_squares(str(folder))
    _squares_cfg(folder, tiny_retinanet()).dump(folder / 'student.py')
    cfg = _squares_cfg(folder, tiny_retinanet(16, 24))
    cfg.dump(folder / 'teacher.py')
    teacher = build_model(cfg.model, seed=1).train()
    loader = Runner.build_dataloader({**cfg.train_dataloader, 'batch_size': 8}, seed=0)
    optimizer = torch.optim.Adam(teacher.parameters(), lr=0.005)
    for _ in range(30):
        data = teacher.data_preprocessor(next(iter(loader)), True)
        loss, _ = teacher.parse_losses(teacher(**data, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    meta = dict(dataset_meta=dict(classes=SHADES))
    torch.save(dict(state_dict=teacher.state_dict(), meta=meta), folder / 'teacher.pth')
    return SimpleNamespace(
        folder=folder,
        student=str(folder / 'student.py'),
        teacher=str(folder / 'teacher.py'),
        ckpt=str(folder / 'teacher.pth'),
    )
