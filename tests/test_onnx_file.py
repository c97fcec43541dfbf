"""What stands in an ONNX file computes what the model predicts, as onnxruntime says and not as we do."""

import json
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmrkd.adapters import build_adapter
from mmrkd.adapters.decoding import clipped, decoder_of, rows
from mmrkd.adapters.detector_graph import partners
from mmrkd.adapters.suppression import Suppression
from mmrkd.checkpoint import METHOD_STATE
from mmrkd.commands import main
from mmrkd.onnx_file import check, input_size, random_images, write_onnx
from mmrkd.testing import (
    NUM_CLASSES,
    build_distiller,
    build_model,
    save_random_teacher,
    tiny_classifier,
    tiny_faster_rcnn,
    tiny_gfl,
    tiny_retinanet,
)

SIZE = (72, 96)  # not a multiple of the divisor: it is padded inside


def dense(kind, head, **entries):
    """A tiny detector of another family: the trunk of the RetinaNet under another head."""
    cfg = tiny_retinanet(8, 16)
    common = dict(num_classes=NUM_CLASSES, in_channels=16, feat_channels=16, stacked_convs=1)
    cfg.update(type=kind, bbox_head=dict(common, type=head, **entries))
    cfg['test_cfg']['score_thr'] = 0.05
    return cfg


POINTS = dict(strides=[8, 16, 32], regress_ranges=((-1, 32), (32, 64), (64, 1e8)))
ATSS_ANCHORS = dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=4, scales_per_octave=1, strides=[8, 16, 32])
ATSS_CODER = dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2])
DETECTORS = {
    'retinanet': tiny_retinanet(8, 16),
    'softmax': tiny_retinanet(8, 16, loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False)),
    'gfl': tiny_gfl(),
    'fcos': dense('FCOS', 'FCOSHead', norm_cfg=None, **POINTS),
    'fcos_strides': dense('FCOS', 'FCOSHead', norm_cfg=None, norm_on_bbox=True, centerness_on_reg=True, **POINTS),
    'atss': dense(
        'ATSS', 'ATSSHead', norm_cfg=dict(type='GN', num_groups=4), anchor_generator=ATSS_ANCHORS, bbox_coder=ATSS_CODER
    ),
}


def decided(cfg):
    """A model that is sure of things: what is drawn for the start of a training scores everything alike."""
    model = build_model(cfg).eval()
    adapter = build_adapter(model)
    images = random_images(2, (96, 96), seed=9).float() / 127.5 - 1
    for parameter in model.bbox_head.parameters():
        if parameter.dim() == 4:
            torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        outputs = adapter.head_outputs(adapter.extract(images))
        for name, module in model.bbox_head.named_modules():
            if isinstance(module, torch.nn.Conv2d) and '_convs' not in name:
                part = 0 if name.endswith('cls') else 1 if name.endswith('reg') else 2
                spread = torch.cat([level.flatten() for level in outputs[part]]).std()
                module.weight *= (2.0, 0.5, 1.0)[part] / spread
                module.bias.fill_(-2.0 if part == 0 else 0.5)
    return model


def runtime(path, images):
    ort = pytest.importorskip('onnxruntime')
    session = ort.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return session, session.run(None, {'images': images})


def saved(model, cfg, folder, **entries):
    Config(dict(model=cfg, **entries)).dump(folder / 'plain.py')
    meta = dict(dataset_meta=dict(classes=('a', 'b', 'c', 'd')))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'plain.pth')
    return str(folder / 'plain.py'), str(folder / 'plain.pth')


@pytest.fixture(autouse=True)
def packages():
    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')


@pytest.mark.parametrize('name', DETECTORS)
def test_detections_are_those_of_the_framework(name, tmp_path):
    """Compared here through mmdet's own test step, on images as its pipeline gives them: blue first."""
    from mmdet.structures import DetDataSample

    cfg = DETECTORS[name]
    model = decided(cfg)
    said = write_onnx(*saved(model, cfg, tmp_path), str(tmp_path / 'x.onnx'), SIZE)
    assert 'images (N, 3, 72, 96) uint8' in said and 'boxes (N, 20, 4)' in said and '0 without partner' in said
    images = random_images(3, SIZE, seed=5)
    _, (boxes, scores, labels) = runtime(tmp_path / 'x.onnx', images.numpy())
    assert boxes.shape == (3, 20, 4)
    meta = dict(img_shape=SIZE, ori_shape=SIZE, scale_factor=(1.0, 1.0))
    batch = dict(inputs=[i.flip(0) for i in images], data_samples=[DetDataSample(metainfo=meta) for _ in images])
    with torch.no_grad():
        samples = model.test_step(batch)
    for image, sample in enumerate(samples):
        found = sample.pred_instances
        count = len(found)
        assert 0 < count and (labels[image] >= 0).sum() == count and (scores[image, count:] == 0).all()
        np.testing.assert_allclose(scores[image, :count], found.scores, atol=1e-5)
        np.testing.assert_allclose(boxes[image, :count], found.bboxes, atol=1e-2)
        np.testing.assert_array_equal(labels[image, :count], found.labels)
        assert (boxes[image, :count, 2] <= SIZE[1]).all() and (boxes[image, :count, 3] <= SIZE[0]).all()


@pytest.mark.parametrize('name', ['retinanet', 'fcos_strides'])
@pytest.mark.parametrize('outputs', ['candidates', 'head'])
def test_before_suppression_and_before_decoding(name, outputs):
    cfg = DETECTORS[name]
    graph = build_adapter(decided(cfg)).graph(SIZE, outputs)
    said = check(graph)
    cells = 12 * 12 + 6 * 6 + 3 * 3  # of 96 x 96, at strides 8, 16 and 32
    if outputs == 'candidates':
        count = cells * (3 if name == 'retinanet' else 1)
        assert said.startswith(f'{4 * count} boxes') and graph.names == ('boxes', 'scores')
    else:
        assert graph.names == tuple(f'output{i}' for i in range(6 if name == 'retinanet' else 9))


def test_a_graph_that_computes_something_else_is_refused():
    graph = build_adapter(decided(DETECTORS['retinanet'])).graph(SIZE, 'candidates')
    graph.mean += 40
    with pytest.raises(ValueError, match='does not compute what RetinaNet predicts'):
        check(graph)
    graph = build_adapter(decided(DETECTORS['retinanet'])).graph(SIZE)
    graph.cfg['nms'] = dict(type='nms', iou_threshold=0.95)
    graph.checkable = lambda: graph
    with pytest.raises(ValueError, match='without partner'):
        check(graph)


@pytest.mark.parametrize('dtype', ['uint8', 'float32'])
def test_scores_of_a_classifier(dtype, tmp_path):
    from mmpretrain.structures import DataSample

    cfg = tiny_classifier()
    cfg['data_preprocessor'].update(mean=[120.0, 110.0, 100.0], std=[50.0, 60.0, 70.0], to_rgb=False)
    model = build_model(cfg).eval()
    preprocessor = cfg.pop('data_preprocessor')  # mmpretrain's configs have it beside the model
    paths = saved(model, cfg, tmp_path, data_preprocessor=preprocessor)
    said = write_onnx(*paths, str(tmp_path / 'x.onnx'), (32, 32), dtype=dtype)
    assert f'{dtype}, RGB, 0 to 255 -> scores (N, 4)' in said
    images = random_images(5, (32, 32), seed=5)
    session, (scores,) = runtime(tmp_path / 'x.onnx', images.numpy().astype(dtype))
    assert json.loads(session.get_modelmeta().custom_metadata_map['classes']) == ['a', 'b', 'c', 'd']
    batch = dict(inputs=images.flip(1), data_samples=[DataSample() for _ in images])
    with torch.no_grad():
        expected = torch.stack([sample.pred_score for sample in model.test_step(batch)])
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert abs(scores - scores.mean(0)).max() > 1e-3, 'the images are told apart'


class TestNumbersByHand:
    def test_deltas(self):
        head = torch.nn.Module()
        head.bbox_coder = build_coder('DeltaXYWHBBoxCoder', target_stds=[0.5, 0.5, 1.0, 1.0])
        anchor = torch.tensor([[[10.0, 20.0, 30.0, 60.0]]])  # centre (20, 40), 20 wide, 40 high
        raw = torch.tensor([[[0.2, -0.1, float(np.log(2)), 99.0]]])  # the height grows by no more than 1000 / 16
        box = decoder_of(head)(anchor, raw, 0)[0, 0]
        assert box.tolist() == pytest.approx([22 - 20, 38 - 1250, 22 + 20, 38 + 1250], rel=1e-5)
        assert clipped(box, (100, 50)).tolist() == pytest.approx([2, 0, 42, 100])

    def test_rows_go_cell_by_cell_and_anchor_by_anchor(self):
        level = torch.arange(2 * 3 * 2.0).reshape(1, 6, 1, 2)  # two anchors of three columns, two cells
        assert rows(level, 3).tolist() == [[[0, 2, 4], [6, 8, 10], [1, 3, 5], [7, 9, 11]]]

    def test_suppression_drops_what_overlaps_and_what_is_nothing(self):
        boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 6], [20, 20, 30, 30], [50, 50, 60, 60]]]).repeat(2, 1, 1)
        scores = torch.tensor([[0.5, 0.9, 0.6, 0.0], [0.5, 0.1, 0.0, 0.0]])
        kept = Suppression.apply(boxes, scores, 0.5, 4)
        assert kept.tolist() == [[0, 0, 1], [0, 0, 2], [1, 0, 0]]  # 60 of 100: overlap 0.6

    def test_partners(self):
        boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1.05], [5, 5, 9, 9]])
        found = boxes, torch.tensor([0.5, 0.4, 0.3]), torch.tensor([1, 1, 1])
        other = boxes[[1, 2, 2]], torch.tensor([0.4001, 0.3, 0.3]), torch.tensor([1, 1, 2])
        (score, box), left = partners(found, other)
        assert score == pytest.approx(1e-4, rel=1e-2) and box == 0 and left == 1  # the last two have no partner


def build_coder(kind, **arguments):
    from mmdet.registry import TASK_UTILS

    return TASK_UTILS.build(dict(type=kind, _scope_='mmdet', **arguments))


def head_with(**changes):
    cfg = tiny_retinanet(8, 16)
    cfg['test_cfg'] = {**cfg['test_cfg'], **changes.pop('test_cfg', {})}
    cfg['bbox_head'].update(changes)
    return cfg


TBLR = dict(type='FSAFHead', bbox_coder=dict(type='TBLRBBoxCoder', normalizer=4.0), reg_decoded_bbox=True)


@pytest.mark.parametrize(
    'cfg, message',
    [
        (tiny_faster_rcnn(8, 16), 'FasterRCNN cannot be written.*its second stage looks at regions.*--outputs head'),
        (head_with(test_cfg=dict(nms=dict(type='soft_nms', iou_threshold=0.5))), "type='nms', iou_threshold"),
        (head_with(**TBLR), 'what a TBLRBBoxCoder decodes to is not known'),
        (head_with(type='PAAHead', norm_cfg=None), 'its PAAHead has a predict_by_feat of its own'),
    ],
    ids=['two stages', 'soft nms', 'coder', 'own prediction'],
)
def test_what_cannot_be_written_is_refused_by_name(cfg, message):
    with pytest.raises(ValueError, match=message):
        build_adapter(build_model(cfg)).graph(SIZE)


def test_outputs_that_are_not_there():
    with pytest.raises(ValueError, match="'candidates', 'head'.*found 'masks'"):
        build_adapter(build_model(tiny_retinanet())).graph(SIZE, 'masks')
    with pytest.raises(ValueError, match="its 'scores', found 'head'"):
        build_adapter(build_model(tiny_classifier())).graph((32, 32), 'head')
    with pytest.raises(ValueError, match='FasterRCNN.*no dense head that gives all'):
        build_adapter(build_model(tiny_faster_rcnn(8, 16))).graph(SIZE, 'head')


def test_the_size_of_the_images_is_that_of_the_pipeline():
    def of(*transforms):
        dataset = dict(type='RepeatDataset', dataset=dict(pipeline=[dict(t) for t in transforms]))
        return input_size(Config(dict(test_dataloader=dict(dataset=dataset))))

    resize = dict(type='mmdet.Resize', scale=(1333, 800))
    assert of(dict(type='LoadImageFromFile'), resize) == (800, 1333)
    assert of(dict(type='ResizeEdge', scale=256), dict(type='CenterCrop', crop_size=224)) == (224, 224)
    with pytest.raises(ValueError, match='--size HEIGHT WIDTH'):
        of(dict(type='LoadImageFromFile'))


def test_the_command_writes_a_distilled_student(tmp_path, capsys):
    """With its classes inside, beside the plain config and checkpoint."""
    student, teacher = tiny_retinanet(8, 16), save_random_teacher(tiny_retinanet(16, 24), tmp_path)
    methods = [dict(type='mmrkd.FitNets')]
    distiller = build_distiller(student, teacher, methods)
    distiller.student.load_state_dict(decided(student).state_dict())
    model = dict(type='mmrkd.Distiller', student=student, teacher=teacher, methods=methods)
    resize = dict(type='Resize', scale=(96, 72))
    loader = dict(dataset=dict(pipeline=[resize]))
    Config(dict(default_scope='mmdet', model=model, test_dataloader=loader)).dump(tmp_path / 'cfg.py')
    state = distiller.state_dict()
    own = {k: state.pop(k) for k in list(state) if k.startswith('methods.')}
    meta = dict(dataset_meta=dict(classes=('a', 'b', 'c', 'd')))
    torch.save({'state_dict': state, METHOD_STATE: dict(state_dict=own), 'meta': meta}, tmp_path / 'run.pth')
    arguments = [str(tmp_path / 'cfg.py'), str(tmp_path / 'run.pth'), '--out', str(tmp_path / 'out')]
    main(['export', *arguments, '--to', 'onnx'])
    said = capsys.readouterr().out
    assert 'student.onnx: images (N, 3, 72, 96)' in said and 'checked in onnxruntime on 4 random images: ' in said
    session, (boxes, *_) = runtime(tmp_path / 'out' / 'student.onnx', random_images(1, SIZE).numpy())
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts['classes']) == ['a', 'b', 'c', 'd'] and facts['model'] == 'RetinaNet'
    main(
        ['export', str(tmp_path / 'out/student.py'), str(tmp_path / 'out/student.pth'), '--to', 'onnx', *arguments[2:]]
    )
    with pytest.raises(SystemExit, match='found a plain RetinaNet: its checkpoints need no export'):
        main(['export', str(tmp_path / 'out/student.py'), str(tmp_path / 'out/student.pth')])


def test_without_the_packages_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(SystemExit, match=r"needs the packages onnx and onnxruntime.*pip install 'mmrkd\[onnx\]'"):
        main(['export', 'cfg.py', 'run.pth', '--to', 'onnx', '--out', str(tmp_path / 'out')])
    assert not (tmp_path / 'out').exists()
