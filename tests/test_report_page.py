"""The report of a comparison, on work dirs as training leaves them."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmrkd.checkpoint import METHOD_STATE
from mmrkd.diagnosis import Facts
from mmrkd.report import baseline, report
from mmrkd.report_page import RunSection, newest_pictures, write_page
from mmrkd.testing import build_distiller, build_model, save_random_teacher, tiny_classifier, tiny_retinanet
from mmrkd.visualization import read_losses

CLASSES = ('a', 'b', 'c', 'd')


@pytest.fixture
def dataset(tmp_path):
    """Two images with one box each, as a dataloader config."""
    rng = np.random.default_rng(0)
    (tmp_path / 'images').mkdir()
    images, annotations = [], []
    for index in range(2):
        Image.fromarray(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)).save(tmp_path / 'images' / f'{index}.png')
        images.append(dict(id=index, file_name=f'{index}.png', width=96, height=96))
        box = dict(bbox=[10, 20, 30, 40], area=1200, category_id=index + 1, iscrowd=0)
        annotations.append(dict(id=index, image_id=index, **box))
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    (tmp_path / 'ann.json').write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(96, 96), keep_ratio=True),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape', 'img_shape', 'scale_factor')),
    ]
    source = dict(data_root=str(tmp_path), ann_file='ann.json', data_prefix=dict(img='images/'))
    return dict(
        batch_size=1,
        num_workers=2,
        persistent_workers=True,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type='CocoDataset', metainfo=dict(classes=CLASSES), test_mode=True, pipeline=pipeline, **source),
    )


def finished_run(folder, dataset, model, state, metrics, **entries):
    """Writes config, checkpoint and log; returns config path and work dir."""
    (folder / 'log' / 'vis_data').mkdir(parents=True)
    cfg = Config(dict(default_scope='mmdet', model=model, val_dataloader=dataset, **entries.pop('cfg', {})))
    cfg.dump(str(folder / 'config.py'))
    torch.save({'state_dict': state, **entries}, folder / 'epoch_2.pth')
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_2.pth'))
    (folder / 'log' / 'vis_data' / 'scalars.json').write_text('\n'.join(map(json.dumps, metrics)))
    return str(folder / 'config.py'), str(folder)


def test_report_has_a_row_for_each_model_and_draws_both_pictures(tmp_path, dataset):
    plain = tiny_retinanet(8, 16)
    ap = 'coco/bbox_mAP'
    alone = finished_run(
        tmp_path / 'alone',
        dataset,
        plain,
        build_model(plain).state_dict(),
        [{ap: 0.3, 'step': 1}, {ap: 0.2, 'step': 2}],
    )
    teacher = save_random_teacher(tiny_retinanet(16, 32), tmp_path)
    distiller = build_distiller(plain, teacher, [dict(type='mmrkd.ERA')])
    state = distiller.state_dict()
    methods = {k: state.pop(k) for k in list(state) if k.startswith('methods.')}
    era = finished_run(
        tmp_path / 'era',
        dataset,
        dict(type='mmrkd.Distiller', student=plain, teacher=teacher, methods=[dict(type='mmrkd.ERA')]),
        state,
        [{ap: 0.1, f'integrated/{ap}': 0.5, 'step': 2}],
        cfg=dict(val_cfg=dict(type='mmrkd.VariantValLoop', variants=('student', 'integrated'))),
        **{METHOD_STATE: dict(state_dict=methods)},
    )
    table = report({'alone': alone, 'era': era}, str(tmp_path), num_images=1)
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in table.splitlines()[2:]]
    assert [row[:3] for row in rows] == [
        ['alone', '20.0', '30.0'],
        ['era', '10.0', '10.0'],
        ['era, integrated', '50.0', '50.0'],
    ]
    assert rows[0][3:5] == rows[1][3:5], 'the student costs what it costs alone'
    assert float(rows[2][3]) > float(rows[1][3]) and float(rows[2][4]) > float(rows[1][4])
    assert (tmp_path / 'table.md').read_text() == table + '\n'
    page = (tmp_path / 'report.html').read_text()
    assert page.count('<img src="data:image/png;base64,') == 2 and 'src="http' not in page and '<script' not in page
    assert '<h2>era</h2>' in page and '<td>era, integrated</td><td>50.0</td>' in page
    assert page.index('class="best"') < page.index('<td>era, integrated</td>') and page.count('class="best"') == 1
    assert '&#34;type&#34;: &#34;mmrkd.ERA&#34;' in page.split('What its config adds')[1]
    for picture in ('curves.png', 'detections.png'):
        assert len(np.unique(np.asarray(Image.open(tmp_path / picture)))) > 10


def test_the_reference_of_the_differences_is_the_student_alone():
    models = dict(teacher=torch.nn.Linear(3, 3), alone=torch.nn.Linear(2, 2), era=torch.nn.Linear(2, 2))
    assert baseline(models, ['era']) == 'alone'
    assert baseline({'era': models['era'], 'teacher': models['teacher']}, ['era']) is None
    assert baseline(models, []) is None


@pytest.fixture
def folders(tmp_path):
    """Two images of two classes, as a dataloader config of mmpretrain."""
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / 'data' / name).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / 'data' / name / '0.png')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    return dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type='CustomDataset', data_root=str(tmp_path / 'data'), pipeline=pipeline),
    )


def classifier_run(folder, folders, metric, save_best=None):
    cfg = dict(default_hooks=dict(checkpoint=dict(save_best=save_best))) if save_best else {}
    model = tiny_classifier()
    path, work_dir = finished_run(
        folder, folders, model, build_model(model).state_dict(), [{metric: 62.5, 'step': 1}], cfg=cfg
    )
    cfg = Config.fromfile(path)
    cfg.default_scope = 'mmpretrain'
    cfg.dump(path)
    return path, work_dir


def test_classifiers_are_judged_by_their_accuracy_in_percent(tmp_path, folders):
    table = report({'alone': classifier_run(tmp_path / 'run', folders, 'accuracy/top1')}, str(tmp_path))
    header, _, row = ([cell.strip() for cell in line.strip('|').split('|')] for line in table.splitlines())
    assert header[1] == 'accuracy/top1, last epoch' and row[:3] == ['alone', '62.5', '62.5']
    assert (tmp_path / 'curves.png').exists() and not (tmp_path / 'detections.png').exists()


def test_runs_that_left_their_facts_are_diagnosed(tmp_path, folders):
    plain = classifier_run(tmp_path / 'plain', folders, 'accuracy/top1')
    runs = {name: classifier_run(tmp_path / name, folders, 'accuracy/top1') for name in ('good', 'bad')}
    for name, lead in dict(good=9.0, bad=0.5).items():
        facts = Facts(student_val=60.0, teacher_val=60.0 + lead)
        (tmp_path / name / 'facts.json').write_text(facts.to_json())
    text = report({'plain': plain, **runs}, str(tmp_path))
    assert text == (tmp_path / 'table.md').read_text()[:-1]
    table, good, bad = text.split('\n\n')
    assert table.startswith('| model |') and len(table.splitlines()) == 5
    assert good == 'Diagnosis of good: none of the causes that are looked for was found.'
    assert bad.splitlines()[0] == 'Diagnosis of bad:' and '- [teacher-no-better]' in bad and 'lead of 0.5' in bad


def test_what_the_best_checkpoint_is_chosen_by_counts(tmp_path, folders):
    run = classifier_run(tmp_path / 'run', folders, 'accuracy/top5', 'accuracy/top5')
    assert '| alone | 62.5 |' in report({'alone': run}, str(tmp_path))
    other = classifier_run(tmp_path / 'other', folders, 'accuracy/top1')
    with pytest.raises(ValueError, match='judged by one metric.*accuracy/top5.*accuracy/top1'):
        report({'alone': run, 'other': other}, str(tmp_path))


def test_names_of_runs_cannot_break_the_page(tmp_path):
    section = RunSection('<script>alert(1)</script>', difference='+ "a": "<b>"')
    write_page(str(tmp_path / 'page.html'), '<i>', ['model', 'AP'], [['<u>', '1.0']], {}, [section], {'<k>': '<v>'})
    page = (tmp_path / 'page.html').read_text()
    assert not any(tag in page for tag in ('<script', '<i>', '<u>', '<k>', '<v>', '"<b>"'))


def test_the_newest_picture_of_each_thing(tmp_path):
    for run, name in (('1', 'era_0_2'), ('1', 'era_0_4'), ('2', 'era_0_10'), ('1', 'era_7_4'), ('1', 'other')):
        folder = tmp_path / run / 'vis_data' / 'vis_image'
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f'{name}.png').touch()
    found = newest_pictures(str(tmp_path))
    assert list(found) == ['era_0, after 10', 'era_7, after 4'] and found['era_0, after 10'].endswith('era_0_10.png')
    assert newest_pictures(str(tmp_path), count=1).keys() == {'era_0, after 10'}


def test_losses_are_read_from_the_log(tmp_path):
    folder = tmp_path / 'a' / 'vis_data'
    folder.mkdir(parents=True)
    lines = [dict(iter=1, loss=2.0, lr=0.1, loss_cls=1.5), dict(iter=2, loss=1.0), {'step': 1, 'coco/bbox_mAP': 0.1}]
    (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    assert read_losses(str(tmp_path)) == {'loss': [(1, 2.0), (2, 1.0)], 'loss_cls': [(1, 1.5)]}
    assert read_losses(str(tmp_path / 'none')) == {}
