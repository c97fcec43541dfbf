"""The command as a user types it, and what comes out of it."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmrkd.export import separated_config
from mmrkd.models.backbones import measure
from mmrkd.registry import MODELS
from mmrkd.testing import classification_batch, detection_batch, model_inputs, tiny_classifier, tiny_retinanet

ROOT = Path(__file__).resolve().parents[2]


def run(monkeypatch, *arguments):
    spec = importlib.util.spec_from_file_location('separate_model', ROOT / 'tools/separate_model.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, 'argv', ['separate_model.py', *map(str, arguments)])
    module.main()


@pytest.mark.parametrize('kind', ['detector', 'classifier'])
def test_it_prints_the_table_and_writes_a_config_that_builds_and_trains(kind, tmp_path, monkeypatch, capsys):
    model = tiny_retinanet(12) if kind == 'detector' else tiny_classifier(12)
    Config(dict(default_scope=model['_scope_'], model=model)).dump(tmp_path / 'tiny_1xb2.py')
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, tmp_path / 'tiny_1xb2.py', '--input-size', 64, '--assistant-share', 0.3)
    output = capsys.readouterr().out
    assert [f'| {name} |' in output for name in ('original', 'student', 'assistant', 'pair')] == [True] * 4
    written = Config.fromfile('tiny-pair_1xb2.py')
    assert written.custom_imports.imports == ['mmrkd'] and written.model.type == model['type']
    built = MODELS.build(written.model).train()
    plain = MODELS.build(model)
    assert sum(p.numel() for p in built.parameters()) <= sum(p.numel() for p in plain.parameters())
    batch = detection_batch() if kind == 'detector' else classification_batch()
    inputs, samples = model_inputs(built, batch)
    built.parse_losses(built.loss(inputs, samples))[0].backward()
    assert [name for name, p in built.named_parameters() if p.grad is None] == [], 'DDP would wait for them'


def test_stages_that_the_neck_does_not_read_are_left_out():
    """The FPN of RetinaNet begins at the second stage; the neck that is written gives what the original gave."""
    init_default_scope('mmdet')
    model = tiny_retinanet(12)
    paired, _ = separated_config(Config(dict(model=model)), input_size=64)
    assert paired.model.backbone.out_channels == [24, 48, 96]
    assert paired.model.backbone.student.out_indices == (1, 2, 3)
    original, other = MODELS.build(model['neck']), MODELS.build(paired.model.neck)
    other.load_state_dict(original.state_dict())
    feats = [torch.randn(1, 12 * 2**i, 16 >> i, 16 >> i) for i in range(4)]
    assert all(torch.equal(a, b) for a, b in zip(original(feats), other(feats[1:])))


@pytest.mark.parametrize(
    'plain, pair, size',
    [
        ('retinanet-r18w12_1xb8-24e_deeppcb.py', 'retinanet-r18w12-pair_1xb8-24e_deeppcb.py', 320),
        ('resnet18w8_1xb128-30e_cifar10.py', 'resnet18w8-pair_1xb128-30e_cifar10.py', 32),
    ],
)
def test_pairs_of_the_baselines_are_what_it_finds(plain, pair, size):
    cfg = Config.fromfile(ROOT / 'configs/baselines' / plain)
    init_default_scope(cfg.default_scope)
    found = separated_config(cfg, input_size=size)[0].model
    written = Config.fromfile(ROOT / 'configs/baselines' / pair).model
    assert found.neck == written.neck and found.backbone.out_channels == written.backbone.out_channels
    for part in ('student', 'assistant'):
        assert {k: found.backbone[part][k] for k in written.backbone[part]} == written.backbone[part]


@pytest.mark.parametrize('indices, widths', [((3,), [512]), ((1, 2, 3), [128, 256, 512]), ((0, 1, 2, 3), None)])
def test_the_pair_of_imagenet_and_coco_costs_no_more_than_resnet18(indices, widths):
    init_default_scope('mmdet')
    cfg = Config.fromfile(ROOT / 'configs/_base_/models/resnet18_pair_backbone.py').pair_backbone
    cfg.student.out_indices = cfg.assistant.out_indices = indices
    cfg.out_channels = widths or cfg.out_channels
    image = torch.zeros(1, 3, 64, 64)
    original = measure(MODELS.build(dict(type='ResNet', depth=18, out_indices=indices)), image)
    pair = measure(MODELS.build(cfg), image)
    assert pair.within(original) and pair.ratio(original) > 0.9
    imagenet = Config.fromfile(ROOT / 'configs/_base_/models/resnet18_pair.py').model.backbone
    for part in ('student', 'assistant'):
        assert imagenet[part].base_channels == cfg[part].base_channels == imagenet[part].stem_channels


def test_errors_end_the_command_with_a_sentence(tmp_path, monkeypatch):
    path = tmp_path / 'vgg.py'
    Config(dict(default_scope='mmpretrain', model=dict(backbone=dict(type='VGG', depth=11)))).dump(path)
    with pytest.raises(SystemExit, match='VGG cannot be narrowed'):
        run(monkeypatch, path)
    Config(dict(default_scope='mmdet', model=dict(type='mmrkd.Distiller', student={}))).dump(path)
    with pytest.raises(SystemExit, match='without a backbone. Separate the plain config first'):
        run(monkeypatch, path)
