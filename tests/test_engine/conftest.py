"""Data sets in memory, a metric that tells models apart, and configs of whole runs that take a second."""

import itertools
import os
from copy import deepcopy
from unittest import mock

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import DATASETS, METRICS
from mmengine.runner import Runner

import mmrkd
from mmrkd.testing import (
    NUM_CLASSES,
    build_model,
    classification_batch,
    detection_batch,
    save_random_teacher,
    tiny_classifier,
    tiny_retinanet,
)

CLASSES = tuple(f'class {i}' for i in range(NUM_CLASSES))
_names = itertools.count()


@DATASETS.register_module()
class TinyData:
    """Generated images, the same every time.

    Args:
        kind: ``'classifier'`` or ``'retinanet'``.
        num_images: Number of images.
        classes: Names for ``metainfo``.
    """

    def __init__(self, kind, num_images=8, classes=CLASSES):
        batch = (classification_batch if kind == 'classifier' else detection_batch)(num_images)
        self.images, self.samples = batch['inputs'], batch['data_samples']
        self.metainfo = dict(classes=tuple(classes))

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return dict(inputs=self.images[index], data_samples=deepcopy(self.samples[index]))


@DATASETS.register_module()
class Quarters:
    """Noise in which one quarter is brighter; which one is the class.

    Args:
        num_images: Number of images.
        contrast: How much brighter; less is harder to learn.
        seed: Of the noise.
        shift: By how much every label is wrong.
    """

    metainfo = dict(classes=CLASSES)

    def __init__(self, num_images=64, contrast=60, seed=0, shift=0):
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randint(0, 120, (num_images, 3, 16, 16), generator=generator, dtype=torch.uint8)
        quarters = torch.arange(num_images) % NUM_CLASSES
        for image, quarter in zip(self.images, quarters.tolist()):
            y, x = 8 * (quarter // 2), 8 * (quarter % 2)
            image[:, y : y + 8, x : x + 8] += contrast
        self.labels = ((quarters + shift) % NUM_CLASSES).tolist()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        from mmpretrain.structures import DataSample

        return dict(inputs=self.images[index], data_samples=DataSample().set_gt_label(self.labels[index]))


@METRICS.register_module()
class MeanScore(BaseMetric):
    """Mean of all scores of the first class: a number that differs between any two models."""

    default_prefix = 'tiny'

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            score = sample['pred_score'][0] if 'pred_score' in sample else sample['pred_instances']['scores'].mean()
            self.results.append(float(score))

    def compute_metrics(self, results):
        return dict(score=sum(results) / len(results), images=len(results))


@pytest.fixture(scope='session', autouse=True)
def on_cpu():
    """What is compared bit for bit runs on the CPU, also where there is a GPU."""
    with mock.patch('mmengine.runner.runner.get_device', lambda: 'cpu'):
        yield


@pytest.fixture(scope='session')
def teachers(tmp_path_factory):
    """Teachers of the two kinds of student, for 4 unnamed classes."""
    folder = tmp_path_factory.mktemp('teachers')
    return dict(
        classifier=save_random_teacher(tiny_classifier(12), folder, seed=5),
        retinanet=save_random_teacher(tiny_retinanet(12, 24), folder, seed=6),
    )


@pytest.fixture(scope='session')
def run_cfg(teachers):
    """Returns a function that makes the config of a run of two epochs with two iterations each."""

    def run_cfg(work_dir, kind='classifier', methods=(dict(type='mmrkd.ERA'),), plain=False, ema=False, **changes):
        student = tiny_classifier() if kind == 'classifier' else tiny_retinanet()
        distiller = dict(
            type='mmrkd.Distiller', student=student, teacher=deepcopy(teachers[kind]), methods=deepcopy(list(methods))
        )
        hooks = [dict(type='EMAHook', momentum=0.5)] if ema else []
        if not plain:
            hooks += [
                dict(type=f'mmrkd.{name}') for name in ('SplitCheckpointHook', 'MergeCheckpointHook', 'ClassCheckHook')
            ]
        loader = dict(batch_size=4, num_workers=0, dataset=dict(type='TinyData', kind=kind))
        cfg = dict(
            model=student if plain else distiller,
            default_scope='mmpretrain' if kind == 'classifier' else 'mmdet',
            work_dir=str(work_dir),
            experiment_name=f'run_{next(_names)}',
            train_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=True)),
            val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
            test_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
            train_cfg=dict(by_epoch=True, max_epochs=2, val_interval=1),
            val_cfg=dict(type='ValLoop'),
            test_cfg=dict(type='TestLoop'),
            val_evaluator=dict(type='MeanScore'),
            test_evaluator=dict(type='MeanScore'),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4)),
            param_scheduler=dict(type='MultiStepLR', milestones=[1]),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
            custom_hooks=hooks,
            randomness=dict(seed=3),
            log_level='ERROR',
        )
        cfg = Config(cfg)
        cfg.merge_from_dict(changes)
        return cfg

    return run_cfg


@pytest.fixture(scope='session')
def train():
    """Returns a function that trains a config and returns the runner."""

    def train(cfg):
        with mock.patch.dict(os.environ):
            runner = Runner.from_cfg(cfg)
            runner.train()
        return runner

    return train


@pytest.fixture(scope='session')
def quarters_teacher(tmp_path_factory):
    """Returns a function that trains a classifier for some steps on quarters, the same one only once."""
    folder, known = tmp_path_factory.mktemp('quarters'), {}

    def train(steps):
        model, dataset = build_model(tiny_classifier(6), seed=1).train(), Quarters(256, seed=9)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
        for step in range(steps):
            items = [dataset[(16 * step + index) % len(dataset)] for index in range(16)]
            batch = {key: [item[key] for item in items] for key in items[0]}
            loss, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        torch.save(dict(state_dict=model.state_dict(), meta={}), folder / f'{steps}.pth')
        return dict(cfg=tiny_classifier(6), ckpt=str(folder / f'{steps}.pth'))

    def quarters_teacher(steps=60):
        if steps not in known:
            known[steps] = train(steps)
        return deepcopy(known[steps])

    return quarters_teacher


@pytest.fixture
def classify(run_cfg, tmp_path):
    """Returns a function that trains a small classifier on quarters, with a cosine, and returns the runner."""

    def classify(teacher, *methods, train=None, epochs=5, lr=0.005, schedule=True, **changes):
        cfg = run_cfg(tmp_path / 'run', methods=methods)
        cfg.model.student, cfg.model.teacher = tiny_classifier(4), teacher
        cfg.train_dataloader.batch_size, cfg.val_dataloader.batch_size = 16, 32
        cfg.train_dataloader.dataset = dict(type='Quarters', **(train or {}))
        cfg.val_dataloader.dataset = dict(type='Quarters', seed=2)
        cfg.val_evaluator = dict(type='Accuracy', topk=(1,))
        cosine = dict(type='CosineAnnealingLR', T_max=epochs, eta_min=0, by_epoch=True, convert_to_iter_based=True)
        cfg.param_scheduler = [cosine] if schedule else []
        cfg.optim_wrapper = dict(optimizer=dict(type='Adam', lr=lr))
        cfg.train_cfg.max_epochs, cfg.check = epochs, False
        cfg.merge_from_dict(changes)
        runner = mmrkd.Runner.from_cfg(cfg)
        runner.train()
        return runner

    return classify
