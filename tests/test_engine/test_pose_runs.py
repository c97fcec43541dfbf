"""Runs of pose estimators from end to end: check, commands, table of costs, files that plain mmpose loads."""

import json
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
from mmrkd.checkpoint import load_checkpoint_file
from mmrkd.doctor import examine
from mmrkd.doctor.trial import lowest_metric
from mmrkd.engine.compose import compose
from mmrkd.engine.cost import cost_table
from mmrkd.testing import build_distiller, build_model, pose_batch, save_random_teacher, tiny_pose

pytest.importorskip('mmpose', reason='the extra `pose` is not installed')
NAMES = ('left', 'right', 'nose')


def metainfo(names=NAMES, swapped=True):
    """As a file of mmpose's describes a data set; without a skeleton."""
    partners = {'left': 'right', 'right': 'left'} if swapped else {}
    points = {
        index: dict(name=name, id=index, color=[0, 0, 0], type='', swap=partners.get(name, ''))
        for index, name in enumerate(names)
    }
    return dict(
        dataset_name='dots',
        keypoint_info=points,
        skeleton_info={},
        joint_weights=[1.0] * len(names),
        sigmas=[0.1] * len(names),
    )


def config(folder, model):
    """A run of two epochs, as a user of mmpose has one."""
    codec = model['head']['decoder']
    load = [dict(type='LoadImage'), dict(type='GetBBoxCenterScale')]
    warp = [dict(type='TopdownAffine', input_size=codec['input_size'])]
    dataset = dict(
        type='BaseCocoStyleDataset',
        data_root=str(folder),
        ann_file='dots.json',
        data_prefix=dict(img='images/'),
        metainfo=metainfo(),
    )
    flip = [dict(type='RandomFlip', direction='horizontal')]
    train = [*load, *flip, *warp, dict(type='GenerateTarget', encoder=codec), dict(type='PackPoseInputs')]
    loader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    return Config(
        dict(
            default_scope='mmpose',
            model=model,
            train_dataloader=dict(loader, dataset=dict(dataset, pipeline=train)),
            val_dataloader=dict(
                loader, dataset=dict(dataset, test_mode=True, pipeline=[*load, *warp, dict(type='PackPoseInputs')])
            ),
            val_evaluator=dict(type='CocoMetric', ann_file=f'{folder}/dots.json'),
            train_cfg=dict(by_epoch=True, max_epochs=1, val_interval=1),
            val_cfg=dict(),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
            randomness=dict(seed=3),
        )
    )


@pytest.fixture(scope='module', params=['heatmaps', 'coordinates'])
def dots(request, tmp_path_factory):
    """Pictures with three dots, configs of student and teacher, and a teacher's random weights as mmpose saves them."""
    folder, rng = tmp_path_factory.mktemp('dots'), np.random.default_rng(0)
    (folder / 'images').mkdir()
    images, annotations = [], []
    for index in range(4):
        points = rng.integers(20, 100, (3, 2))
        pixels = np.zeros((120, 130, 3), dtype=np.uint8)
        for channel, (x, y) in enumerate(points):
            pixels[y - 4 : y + 4, x - 4 : x + 4, channel] = 255
        Image.fromarray(pixels).save(folder / 'images' / f'{index}.png')
        images.append(dict(id=index, file_name=f'{index}.png', width=130, height=120))
        flat = np.concatenate([points, np.full((3, 1), 2)], axis=1).flatten().tolist()
        whole = dict(bbox=[5, 5, 120, 110], area=120 * 110, iscrowd=0, category_id=1, num_keypoints=3)
        annotations.append(dict(whole, id=index, image_id=index, keypoints=flat))
    categories = [dict(id=1, name='dots', keypoints=list(NAMES), skeleton=[])]
    (folder / 'dots.json').write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    cfg = config(folder, tiny_pose(request.param, width=12))
    cfg.dump(folder / 'teacher.py')
    config(folder, tiny_pose(request.param)).dump(folder / 'student.py')
    model = build_model(cfg.model, seed=1)
    from mmengine.registry import DATASETS, init_default_scope

    init_default_scope('mmpose')
    meta = DATASETS.build(cfg.train_dataloader.dataset).metainfo
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=meta)), folder / 'teacher.pth')
    files = {name: str(folder / f'{name}.py') for name in ('student', 'teacher')}
    return SimpleNamespace(folder=folder, ckpt=str(folder / 'teacher.pth'), head=request.param, meta=meta, **files)


def test_a_teacher_must_find_something():
    assert lowest_metric('coco/AP', 17, 16) == lowest_metric('PCK', 17, 16) == 0.01


def test_a_checkpoint_without_a_skeleton_is_harmless(dots):
    meta = load_checkpoint_file(dots.ckpt)['meta']['dataset_meta']
    assert meta['skeleton_link_colors'].shape[0] == 0 and meta['flip_indices'] == [1, 0, 2]


def test_the_check_evaluates_the_teacher_and_tries_a_step(dots):
    cfg = compose(Config.fromfile(dots.student), dots.teacher, dots.ckpt, ['era'])
    report = examine(cfg)
    assert {fault.name for fault in report.faults} <= {'teacher-untrained'}, report.faults
    text = str(report)
    assert 'student: TopdownPoseEstimator' in text and 'the teacher on 4 validation images: coco/AP' in text
    assert 'classes of the teacher: left, right, nose' in text and 'era.loss_twi_2' in text and 'loss_kpt' in text


def test_the_check_names_keypoints_that_differ(dots):
    cfg = compose(Config.fromfile(dots.student), dots.teacher, dots.ckpt, ['kd'])
    cfg.val_dataloader = cfg.val_evaluator = None  # the teacher need not be evaluated for this
    for other, text in ((metainfo(('left', 'nose', 'right')), 'nose'), (metainfo(swapped=False), 'flip_indices')):
        cfg.train_dataloader.dataset.metainfo = other
        faults = [fault for fault in examine(cfg).faults if fault.name == 'class-names']
        assert len(faults) == 1 and text in faults[0].message
    cfg.model.student.head.out_channels = 4
    assert 'class-count' in {fault.name for fault in examine(cfg).faults}


def test_a_plain_config_is_distilled_by_name_and_gives_a_plain_student(dots, tmp_path, monkeypatch):
    arguments = [
        'train',
        dots.student,
        '--teacher',
        dots.teacher,
        '--teacher-ckpt',
        dots.ckpt,
        '--method',
        'era',
        '--method',
        'kd',
    ]
    monkeypatch.setattr(sys, 'argv', ['mmrkd', *arguments, '--work-dir', str(tmp_path), '--no-check'])
    main(sys.argv[1:])
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    assert not [name for name in saved['state_dict'] if 'era' in name or 'teacher' in name]
    build_model(tiny_pose(dots.head)).load_state_dict(saved['state_dict'])
    log = next(tmp_path.glob('*/vis_data/scalars.json')).read_text()
    assert 'coco/AP' in log and 'era.loss_twi_2' in log and 'kd.loss_kd' in log


@pytest.mark.parametrize('at', ['backbone', 'penultimate'])
def test_the_table_of_costs_has_a_row_for_each_variant(tmp_path, at):
    teacher = save_random_teacher(tiny_pose(width=12), tmp_path)
    distiller = build_distiller(tiny_pose(), teacher, [dict(type='mmrkd.ERA')], at=at)
    metrics = {'coco/AP': 0.4, 'integrated/coco/AP': 0.5, 'teacher/coco/AP': 0.6}
    batch = pose_batch(distiller.student.head.decoder)
    table = cost_table(Config(), distiller, [batch], ['student', 'integrated', 'teacher'], metrics)
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in table.splitlines()[2:]]
    assert [row[:2] for row in rows] == [['student', '0.4'], ['integrated', '0.5'], ['teacher', '0.6']]
    params = [row[2] for row in rows]
    assert float(params[0]) < float(params[2]) and (params[1] == '-') == (at == 'penultimate')


@pytest.mark.parametrize('head', ['heatmaps', 'coordinates'])
def test_generated_batches_are_what_pose_estimators_train_on(head):
    model = build_model(tiny_pose(head)).train()
    batch = generated_batch(build_adapter(model), 2, (96, 64))
    assert torch.isfinite(model(**model.data_preprocessor(batch, True), mode='loss')['loss_kpt'])
    with pytest.raises(ValueError, match=r'the input size \(w, h\) \(64, 96\), asked was \(64, 64\)'):
        generated_batch(build_adapter(model), 2, (64, 64))
