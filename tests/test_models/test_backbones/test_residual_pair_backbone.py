import pytest
import torch
from mmengine.registry import init_default_scope

from mmrkd.models.backbones import ResidualPairBackbone
from mmrkd.registry import MODELS
from mmrkd.testing import classification_batch, detection_batch, model_inputs, tiny_classifier, tiny_retinanet

WIDTHS = [8, 16, 32, 64]


def resnet(width, **changes):
    cfg = dict(type='ResNet', _scope_='mmdet', depth=18, base_channels=width, stem_channels=width, norm_eval=False)
    return dict(cfg, **changes)


def pair(**changes):
    return ResidualPairBackbone(**dict(dict(student=resnet(6), assistant=resnet(3), out_channels=WIDTHS), **changes))


def random_norms(backbone):
    for module in backbone.sums.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.running_mean, module.running_var, module.weight, module.bias):
                torch.nn.init.uniform_(values, 0.5, 2)
    return backbone


def projected(layer, feat):
    mean, var, weight, bias = (
        values.view(1, -1, 1, 1)
        for values in (layer.bn.running_mean, layer.bn.running_var, layer.bn.weight, layer.bn.bias)
    )
    feat = torch.einsum('oi,nihw->nohw', layer.conv.weight[..., 0, 0], feat)
    return (feat - mean) / torch.sqrt(var + 1e-5) * weight + bias


def test_stages_are_the_sums_of_both_parts_in_the_original_widths():
    backbone = random_norms(pair()).eval()
    images = torch.randn(1, 3, 64, 64)
    found, students, assistants = backbone(images), backbone.student(images), backbone.assistant(images)
    assert [tuple(f.shape) for f in found] == [(1, 8, 16, 16), (1, 16, 8, 8), (1, 32, 4, 4), (1, 64, 2, 2)]
    for add, f, s, a in zip(backbone.sums.values(), found, students, assistants):
        assert torch.allclose(f, projected(add.student, s) + projected(add.assistant, a), atol=1e-5)


def test_unassisted_it_does_not_run_the_assistant():
    backbone = random_norms(pair()).eval()
    images = torch.randn(1, 3, 64, 64)
    whole, assistant = backbone(images), backbone.assistant
    expected = [projected(add.student, s) for add, s in zip(backbone.sums.values(), backbone.student(images))]
    calls = []
    assistant.register_forward_hook(lambda *_: calls.append(1))
    with backbone.unassisted():
        found = backbone(images)
    assert calls == [] and all(torch.allclose(f, e, atol=1e-5) for f, e in zip(found, expected))
    assert all(torch.equal(f, e) for f, e in zip(backbone(images), whole)) and calls == [1]


def test_equal_widths_leave_the_student_as_it_is_and_give_the_residual_both_signs():
    backbone = pair(student=resnet(6), assistant=resnet(6), out_channels=None)
    assert backbone.sums['3'].student.__class__ is torch.nn.Identity
    layer = backbone.sums['3'].assistant
    assert layer.conv.weight.shape == (48, 1, 1, 1) and layer.groups == 48
    taps = []
    layer.register_forward_hook(lambda module, inputs, output: taps.append((inputs[0].min(), output.min())))
    backbone.eval()(torch.randn(1, 3, 64, 64))
    assert taps[0][0] >= 0 > taps[0][1]


def test_the_projections_are_normalised():
    backbone = pair().train()
    taps = []
    backbone.sums['1'].assistant.register_forward_hook(lambda *args: taps.append(args[2]))
    backbone(torch.randn(4, 3, 64, 64))
    assert torch.allclose(taps[0].mean((0, 2, 3)), torch.zeros(16), atol=1e-4)
    assert backbone.sums['1'].assistant.conv.bias is None


def test_a_backbone_without_an_assistant_takes_the_weights_of_the_pair():
    backbone, alone = pair().eval(), pair(assistant=None).eval()
    weights = backbone.state_dict()
    alone.load_state_dict({name: weights[name] for name in alone.state_dict()})
    assert alone.assistant_modules()[0].__class__ is torch.nn.Identity
    images = torch.randn(1, 3, 64, 64)
    with backbone.unassisted():
        assert all(torch.equal(a, b) for a, b in zip(alone(images), backbone(images)))


def test_stages_are_named_as_the_student_counts_them():
    last = pair(student=resnet(6, out_indices=(3,)), assistant=resnet(3, out_indices=(3,)), out_channels=[64])
    assert list(last.sums) == ['3'] and list(pair().sums) == ['0', '1', '2', '3']
    fits = pair().load_state_dict(last.state_dict(), strict=False)
    assert fits.unexpected_keys == [] and all(name.startswith('sums.') for name in fits.missing_keys)


def test_training_mode_and_frozen_stages_reach_the_parts():
    frozen = dict(frozen_stages=1, norm_eval=True)
    backbone = pair(student=resnet(6, **frozen), assistant=resnet(3))
    backbone.train()
    for part, trains in ((backbone.student, False), (backbone.assistant, True)):
        assert part.layer1[0].conv1.weight.requires_grad is trains
        assert part.layer4[0].bn1.training is trains
    assert all(add.student.bn.training for add in backbone.sums.values()), 'fresh layers, which are never frozen'
    backbone.eval()
    assert not any(module.training for module in backbone.modules())


def test_building_it_changes_no_buffer_and_draws_no_number_beyond_the_weights():
    backbone = pair()
    assert all(v.item() == 0 for k, v in backbone.state_dict().items() if k.endswith('num_batches_tracked'))
    assert all(module.training for module in backbone.modules() if isinstance(module, torch.nn.Conv2d))


def test_init_weights_reaches_the_parts():
    cfg = dict(type='Constant', layer='Conv2d', val=0.25)
    backbone = pair(student=resnet(6, init_cfg=cfg), assistant=resnet(3, init_cfg=cfg))
    backbone.init_weights()
    assert backbone.student.conv1.weight.unique().item() == 0.25
    assert backbone.assistant.layer4[1].conv2.weight.unique().item() == 0.25


def test_parts_that_do_not_line_up_are_refused():
    with pytest.raises(ValueError, match='same out_indices and strides'):
        pair(assistant=resnet(3, out_indices=(1, 2, 3)))
    with pytest.raises(ValueError, match='expected 4 widths'):
        pair(out_channels=[8, 16])


def test_a_detector_and_a_classifier_run_on_it():
    """Neck and head are those of the original; every parameter gets a gradient, as DDP wants."""
    detector, classifier = tiny_retinanet(), tiny_classifier()
    parts = [resnet(w, out_indices=(1, 2, 3)) for w in (6, 3)]
    detector['backbone'] = dict(
        type='mmrkd.ResidualPairBackbone', student=parts[0], assistant=parts[1], out_channels=WIDTHS[1:]
    )
    detector['neck'].update(in_channels=WIDTHS[1:], start_level=0)
    part = dict(classifier['backbone'])
    classifier['backbone'] = dict(
        type='mmrkd.ResidualPairBackbone',
        student=dict(part, base_channels=6, stem_channels=6),
        assistant=dict(part, base_channels=3, stem_channels=3),
        out_channels=[64],
    )
    for cfg, batch in ((detector, detection_batch()), (classifier, classification_batch())):
        init_default_scope(cfg['_scope_'])
        model = MODELS.build(cfg).train()
        inputs, samples = model_inputs(model, batch)
        model.parse_losses(model.loss(inputs, samples))[0].backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []
