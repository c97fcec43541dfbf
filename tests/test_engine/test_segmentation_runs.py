"""Runs of segmentors from end to end: check, commands, table of costs, files that plain mmseg loads."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmrkd.__main__ import main
from mmrkd.adapters import build_adapter
from mmrkd.adapters.generated import generated_batch
from mmrkd.doctor import examine
from mmrkd.doctor.trial import lowest_metric
from mmrkd.engine.compose import compose
from mmrkd.engine.cost import cost_table
from mmrkd.testing import (
    NUM_CLASSES,
    build_distiller,
    build_model,
    save_random_teacher,
    segmentation_batch,
    tiny_segmentor,
)

pytest.importorskip('mmseg', reason='the extra `segmentation` is not installed')
SHADES = tuple(f'shade {index}' for index in range(NUM_CLASSES))


def config(folder, model):
    """A run of two iterations, as a user of mmseg has one."""
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(folder),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        metainfo=dict(classes=SHADES, palette=[[60 * index] * 3 for index in range(NUM_CLASSES)]),
        img_suffix='.png',
        seg_map_suffix='.png',
        pipeline=pipeline,
    )
    loader = dict(batch_size=2, num_workers=0, dataset=dataset)
    return Config(
        dict(
            default_scope='mmseg',
            model=model,
            train_dataloader=dict(loader, sampler=dict(type='InfiniteSampler', shuffle=True)),
            val_dataloader=dict(loader, batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False)),
            val_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2),
            val_cfg=dict(type='ValLoop'),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2)),
            randomness=dict(seed=3),
        )
    )


@pytest.fixture(scope='module')
def bands(tmp_path_factory):
    """Images of four shades in bands, configs of student and teacher, and random weights of a teacher."""
    folder = tmp_path_factory.mktemp('bands')
    for index in range(4):
        labels = np.roll(np.repeat(np.arange(NUM_CLASSES, dtype=np.uint8), 16), 16 * index)[:, None].repeat(64, axis=1)
        for name, pixels in (('images', np.stack([labels * 60] * 3, axis=2)), ('labels', labels)):
            (folder / name).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / name / f'{index}.png')
    config(folder, tiny_segmentor()).dump(folder / 'student.py')
    cfg = config(folder, tiny_segmentor(width=12, channels=12))
    cfg.dump(folder / 'teacher.py')
    state = build_model(cfg.model, seed=1).state_dict()
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=dict(classes=SHADES))), folder / 'teacher.pth')
    files = {name: str(folder / f'{name}.py') for name in ('student', 'teacher')}
    return SimpleNamespace(folder=folder, ckpt=str(folder / 'teacher.pth'), **files)


def test_a_teacher_must_beat_one_class_everywhere():
    assert lowest_metric('mIoU', 4, 16) == 25 and lowest_metric('mIoU', None, 16) is None


def test_the_check_evaluates_the_teacher_and_tries_a_step(bands):
    cfg = compose(Config.fromfile(bands.student), bands.teacher, bands.ckpt, ['era'])
    report = examine(cfg)
    assert {fault.name for fault in report.faults} <= {'teacher-untrained'}, report.faults
    text = str(report)
    assert 'student: EncoderDecoder' in text and 'the teacher on 4 validation images: mIoU' in text
    assert 'era.loss_twi_2' in text and 'decode.loss_ce' in text
    cfg.model.at = 'penultimate'
    assert {fault.name for fault in examine(cfg).faults} <= {'teacher-untrained'}


def test_the_check_names_a_wrong_number_of_classes(bands):
    cfg = compose(Config.fromfile(bands.student), bands.teacher, bands.ckpt, ['fitnets'])
    cfg.model.student.decode_head.num_classes = cfg.model.student.auxiliary_head.num_classes = 3
    assert 'class-count' in {fault.name for fault in examine(cfg).faults}


def test_a_plain_config_is_distilled_by_name_and_gives_a_plain_student(bands, tmp_path, monkeypatch):
    arguments = ['train', bands.student, '--teacher', bands.teacher, '--teacher-ckpt', bands.ckpt, '--method', 'era']
    monkeypatch.setattr(sys, 'argv', ['mmrkd', *arguments, '--work-dir', str(tmp_path), '--no-check'])
    main(sys.argv[1:])
    saved = torch.load(tmp_path / 'iter_2.pth', weights_only=False)
    assert not [name for name in saved['state_dict'] if 'era' in name or 'teacher' in name]
    build_model(tiny_segmentor()).load_state_dict(saved['state_dict'])


@pytest.mark.parametrize('at', ['backbone', 'penultimate'])
def test_the_table_of_costs_has_a_row_for_each_variant(tmp_path, at):
    teacher = save_random_teacher(tiny_segmentor(width=12, channels=12), tmp_path)
    distiller = build_distiller(tiny_segmentor(), teacher, [dict(type='mmrkd.ERA')], at=at)
    metrics = {'mIoU': 40.0, 'integrated/mIoU': 50.0, 'teacher/mIoU': 60.0}
    table = cost_table(Config(), distiller, [segmentation_batch(1)], ['student', 'integrated', 'teacher'], metrics)
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in table.splitlines()[2:]]
    assert [row[:2] for row in rows] == [['student', '40'], ['integrated', '50'], ['teacher', '60']]
    params = [row[2] for row in rows]
    assert float(params[0]) < float(params[2]) and (params[1] == '-') == (at == 'penultimate')


def test_generated_batches_are_what_segmentors_train_on():
    model = build_model(tiny_segmentor()).train()
    batch = generated_batch(build_adapter(model), 2, (64, 96))
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    assert torch.isfinite(losses['decode.loss_ce'])
