"""What real data and COCO's conventions look like gives no word; each mistake in it gives its own."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmrkd.doctor.annotations import examine_annotations
from mmrkd.doctor.boxes import Boxes, anchor_sizes, examine_boxes, examine_reach, scale_of
from mmrkd.doctor.report import Report
from mmrkd.testing import build_model, detection_batch, tiny_gfl, tiny_retinanet

DATA = Path(__file__).resolve().parents[3] / 'shared' / 'data'
real_data = pytest.mark.skipif(not DATA.is_dir(), reason='the shared data is not there')
CLASSES = {
    'bccd': ('RBC', 'WBC', 'Platelets'),
    'deeppcb': ('open', 'short', 'mousebite', 'spur', 'copper', 'pin-hole'),
}
PARTS = [(name, part) for name in CLASSES for part in ('train', 'val', 'test')]


def examined(name, content, folder, built=False, **dataset):
    """The report on a dataset of some content."""
    init_default_scope('mmdet')
    path = folder / 'annotations.json'
    path.write_text(json.dumps(content))
    dataset = dict(type='CocoDataset', ann_file=str(path), metainfo=dict(classes=CLASSES[name]), **dataset)
    report, datasets = Report(), {}
    if built:
        from mmdet.registry import DATASETS

        dataset['data_prefix'] = dict(img=str(DATA / name / 'images'))
        datasets['train_dataloader'] = DATASETS.build(dict(dataset, pipeline=[]))
    examine_annotations(Config(dict(train_dataloader=dict(dataset=dataset))), datasets, report)
    return report


def content_of(name, part='train'):
    return json.loads((DATA / name / 'annotations' / f'{part}.json').read_text())


def boxes_of(content, change):
    for annotation in content['annotations']:
        annotation['bbox'] = change(*annotation['bbox'])
    return content


@real_data
@pytest.mark.parametrize('name, part', PARTS)
def test_real_data_has_nothing_wrong(name, part, tmp_path):
    report = examined(name, content_of(name, part), tmp_path, built=True)
    assert not report.faults and not report.warnings, str(report)


@real_data
@pytest.mark.parametrize('name', CLASSES)
@pytest.mark.parametrize('keep', ['area', 'no polygons'])
def test_boxes_as_corners(name, keep, tmp_path):
    """With and without an area that gives them away."""
    content = boxes_of(content_of(name), lambda x, y, w, h: [x, y, x + w, y + h])
    for annotation in content['annotations'] if keep != 'area' else ():
        annotation['area'] = 0.6 * annotation['area']  # that of a polygon
    (fault,) = examined(name, content, tmp_path).faults
    assert fault.name == 'boxes-format' and 'the boxes are x1, y1, x2, y2' in fault.message
    assert '(74.5%)' in fault.message if name == 'bccd' else '(67.3%)' in fault.message


@real_data
def test_width_and_height_of_boxes_exchanged(tmp_path):
    report = examined('bccd', boxes_of(content_of('bccd'), lambda x, y, w, h: [x, y, h, w]), tmp_path)
    (fault,) = report.faults
    assert fault.name == 'boxes-outside' and '(11.1%)' in fault.message
    assert 'read as x, y, height, width it would be 0 of 2804' in fault.message
    report = examined('deeppcb', boxes_of(content_of('deeppcb'), lambda x, y, w, h: [x, y, h, w]), tmp_path)
    assert not report.faults and [warning.name for warning in report.warnings] == ['boxes-outside']
    assert '19 of 5457 (0.3%)' in report.warnings[0].message and 'height, width' in report.warnings[0].message


@real_data
def test_width_and_height_of_images_exchanged(tmp_path):
    content = content_of('bccd')
    for image in content['images']:
        image['width'], image['height'] = image['height'], image['width']
    report = examined('bccd', content, tmp_path, built=True)
    outside, size = report.faults
    assert outside.name == 'boxes-outside' and 'width and height are exchanged' in outside.message
    assert size.name == 'image-size' and '16 of 16' in size.message and 'exchanged' in size.message


@real_data
def test_one_box_of_nan_and_one_of_an_unknown_category(tmp_path):
    content = content_of('bccd')
    content['annotations'][5]['bbox'][2] = float('nan')
    content['annotations'][9]['category_id'] = 4
    report = examined('bccd', content, tmp_path)
    found = {fault.name: fault.message for fault in report.faults}
    assert found.keys() == {'boxes-not-finite', 'category-unknown'}
    assert '1 of 2804 (0.0%)' in found['boxes-not-finite']
    assert '1 of 2804 boxes (0.0%) have a category_id that the file does not define: 4' in found['category-unknown']


@real_data
@pytest.mark.parametrize(
    'change, names',
    [
        (lambda x, y, w, h: [x + w / 2, y + h / 2, w, h], {'boxes-outside'}),
        (lambda x, y, w, h: [x / 640, y / 480, w / 640, h / 480], {'boxes-without-area'}),
        (lambda x, y, w, h: [2 * x, 2 * y, 2 * w, 2 * h], {'boxes-outside'}),
        (lambda x, y, w, h: [x, y, 0, h], {'boxes-without-area'}),
        (lambda x, y, w, h: [str(x), y, w, h], {'boxes-format'}),
        (lambda x, y, w, h: [[x, y], [w, h]], {'boxes-format'}),
    ],
    ids=['centre', 'shares', 'other resolution', 'no width', 'texts', 'nested'],
)
def test_other_mistakes_with_boxes(change, names, tmp_path):
    report = examined('bccd', boxes_of(content_of('bccd'), change), tmp_path)
    assert {fault.name for fault in report.faults} == names


@real_data
def test_conventions_of_coco_are_no_mistakes(tmp_path):
    """Crowds, polygons, boxes that touch the border or reach a pixel over it, images without an object."""
    content = content_of('bccd')
    images = {image['id']: image for image in content['images']}
    for index, annotation in enumerate(content['annotations']):
        image = images[annotation['image_id']]
        x, y, w, h = annotation['bbox']
        annotation['segmentation'] = [[x, y, x + w, y, x + w, y + h]]
        annotation['area'] = w * h / 2
        if index % 3 == 0:
            annotation['bbox'] = [x, y, image['width'] - x, image['height'] - y]
        elif index % 3 == 1:
            annotation['bbox'] = [-1, -1, x + w, y + h]
        elif index % 9 == 2:
            annotation.update(iscrowd=1, bbox=[0, 0, 2 * image['width'], image['height']])
    content['images'].append(dict(id=10**6, file_name='empty.jpg', width=640, height=480))
    content['categories'].append(dict(id=9, name='of no interest'))
    report = examined('bccd', content, tmp_path)
    assert not report.faults and not report.warnings, str(report)


@real_data
def test_classes_that_are_left_out_on_purpose_are_a_warning(tmp_path):
    content = content_of('bccd')
    content['categories'][1]['name'] = 'Leukocyte'
    init_default_scope('mmdet')
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(content))
    report = Report()
    dataset = dict(type='CocoDataset', ann_file=str(path), metainfo=dict(classes=('RBC', 'Platelets')))
    wrapped = dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[dataset]))
    examine_annotations(Config(dict(train_dataloader=dict(dataset=wrapped))), {}, report)
    assert not report.faults and [warning.name for warning in report.warnings] == ['category-unused']
    assert 'are not among the classes: Leukocyte' in report.warnings[0].message


@real_data
def test_a_class_that_is_no_category_shifts_the_labels_of_the_others(tmp_path):
    content = content_of('bccd')
    content['categories'][0]['name'] = 'Erythrocyte'
    (fault,) = examined('bccd', content, tmp_path).faults
    assert fault.name == 'category-unknown' and 'RBC are no categories of the file' in fault.message
    content = content_of('bccd')
    content['categories'][2]['name'] = 'Thrombocyte'  # the last one: no label is shifted
    report = examined('bccd', content, tmp_path)
    assert not report.faults and {warning.name for warning in report.warnings} == {'category-unused'}


class Listed:
    """A dataset that is not of COCO's form."""

    def __init__(self, *boxes):
        self.boxes = boxes

    def __len__(self):
        return len(self.boxes)

    def get_data_info(self, index):
        return dict(img_path=f'{index}.jpg', width=100, height=50, instances=[dict(bbox=self.boxes[index])])


@pytest.mark.parametrize(
    'box, name',
    [
        ([10, 10, 100, 50], None),
        ([10, 10, 130, 40], 'boxes-outside'),
        ([10, 10, 10, 40], 'boxes-without-area'),
        ([10, float('inf'), 20, 40], 'boxes-not-finite'),
    ],
)
def test_datasets_of_another_form_are_asked_for_their_objects(box, name):
    report = Report()
    examine_annotations(Config(dict(train_dataloader={})), dict(train_dataloader=Listed(box, [0, 0, 9, 9])), report)
    assert [fault.name for fault in report.faults] == ([name] if name else [])
    assert not name or '1 of 2 (50.0%)' in report.faults[0].message


def boxes(*sides):
    xywh = np.array([(0, 0, side, side) for side in sides], dtype=float)
    return Boxes('train', xywh, np.full((len(sides), 2), 1000.0), ['a.jpg'] * len(sides), xywh[:, 2] ** 2)


def test_the_reach_of_anchors():
    anchors = anchor_sizes(build_model(tiny_retinanet()))
    np.testing.assert_allclose(sorted(set(anchors.round(3))), [32, 64, 128])
    for sides, scale, kind in (
        ((8, 40, 500), 1.0, None),
        ((16, 80, 1000), 0.5, None),
        ((7, *[40] * 8, 600), 1.0, 'warnings'),
        ((7, 7, 40), 1.0, 'faults'),
        ((40, 40, 40), 0.1, 'faults'),
        ((40, 40, 40), 20.0, 'faults'),
    ):
        report = Report()
        examine_reach(boxes(*sides), anchors, scale, report)
        found = {k: [fault.name for fault in getattr(report, k)] for k in ('faults', 'warnings')}
        assert found == {k: ['anchor-reach'] if k == kind else [] for k in found}, sides


def test_a_head_of_points_reaches_everything():
    cfg = tiny_retinanet()
    cfg.update(type='FCOS', bbox_head=dict(type='FCOSHead', num_classes=4, in_channels=16, strides=[8, 16, 32]))
    cfg['bbox_head']['regress_ranges'] = ((-1, 64), (64, 128), (128, 1e8))
    report = Report()
    examine_reach(boxes(1, 1), anchor_sizes(build_model(cfg)), 1.0, report)
    assert len(anchor_sizes(build_model(tiny_gfl()))) and not report.faults and not report.warnings


def test_the_scale_of_a_batch():
    batch = detection_batch(3)
    for sample, scale in zip(batch['data_samples'], ((0.5, 0.5), (2.0, 0.5), (0.25, 0.25))):
        sample.set_metainfo(dict(scale_factor=scale))
    assert scale_of(batch) == pytest.approx(0.5)
    assert scale_of(dict(inputs=[])) == scale_of(dict(inputs=[], data_samples={})) == 1.0


def test_boxes_come_back_without_those_that_are_not_finite():
    report = Report()
    found = examine_boxes(boxes(3, float('nan'), 5), report)
    assert found.xywh[:, 2].tolist() == [3, 5] and [fault.name for fault in report.faults] == ['boxes-not-finite']
