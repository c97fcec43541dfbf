"""SemiOnlineKD on detectors: dense outputs, boxes, and errors that say what differs."""

from copy import deepcopy

import pytest
import torch
from reference import bernoulli_kl, second_teacher, softmax_kl, stir, task_total

from mmrkd.adapters import build_adapter
from mmrkd.testing import (
    build_distiller,
    build_model,
    detection_batch,
    model_inputs,
    save_random_teacher,
    tiny_faster_rcnn,
    tiny_gfl,
    tiny_retinanet,
)

# Of the paper, given in full: those of detectors are others.
WEIGHTS = dict(w_teacher_bridge=1.0, w_student_bridge=1.0, w_bridge_student=1.0)


def build(student, teacher, double=True, **settings):
    """A distiller whose heads have opinions, and a batch for it."""
    distiller = build_distiller(student, teacher, [dict(type='mmrkd.SemiOnlineKD', **{**WEIGHTS, **settings})])
    inputs, samples = model_inputs(distiller, detection_batch())
    stir(distiller.methods[0].bridge.model, seed=3)
    stir(build_adapter(distiller.student).head, seed=4)
    if double:
        return distiller.double().train(), inputs.double(), samples
    return distiller.train(), inputs, samples


def named(losses):
    return {k.replace('semionlinekd.', ''): v for k, v in losses.items() if k.startswith('semionlinekd.')}


def flat(levels, width):
    return torch.cat([x.permute(0, 2, 3, 1).reshape(-1, width) for x in levels])


def mimicry(target, learner, bins=1):
    """KL of dense logits, and what boxes cost, both from raw outputs of a head."""
    (z_p, z_q), (b_p, b_q) = (
        [flat(o[part], width) for o in (target, learner)] for part, width in ((0, 4), (1, 4 * bins))
    )
    confidence = z_p.detach().sigmoid().amax(1)
    if bins > 1:
        rows = [softmax_kl(p.reshape(4, bins), q.reshape(4, bins), 10.0) for p, q in zip(b_p, b_q)]
        boxes = torch.stack(rows)
    else:
        boxes = (b_p.detach() - b_q).abs().mean(1)
    return bernoulli_kl(z_p, z_q, 1.0), (confidence * boxes).sum() / confidence.sum().clamp(min=1)


def reference(distiller, inputs, samples, source, split, bins=1):
    """All terms, on a second model of the teacher's class, which is run as a whole."""
    frozen = second_teacher(source)
    plain = build_model(source['cfg']).double()
    plain.load_state_dict(distiller.methods[0].bridge.whole_state())
    plain.train()
    if split == 'neck':
        plain.backbone.eval(), plain.neck.eval()
        feats = plain.extract_feat(inputs)
    else:
        body = plain.backbone
        with torch.no_grad():
            body.eval()
            f1 = body.layer1(body.maxpool(torch.relu(body.bn1(body.conv1(inputs)))))
            f2 = body.layer2(f1)
            f3 = body.layer3(f2)
        body.train()
        feats = plain.neck((f1, f2, f3, body.layer4(f3)))
    plain.extract_feat = lambda _inputs: feats
    task = task_total(plain.loss(inputs, deepcopy(samples)))
    with torch.no_grad():
        z_t = frozen.bbox_head(frozen.extract_feat(inputs))
    z_k, z_s = plain.bbox_head(feats), distiller.student.bbox_head(distiller.student.extract_feat(inputs))
    losses = {'loss_bridge_task': task}
    for way, target, learner in (
        ('teacher_bridge', z_t, z_k),
        ('student_bridge', z_s, z_k),
        ('bridge_student', z_k, z_s),
    ):
        losses[f'loss_{way}'], losses[f'loss_{way}_box'] = mimicry(target, learner, bins)
    return plain, losses


@pytest.fixture(scope='module')
def gfl_teacher(tmp_path_factory):
    return save_random_teacher(tiny_gfl(12, 24), tmp_path_factory.mktemp('gfl'), seed=21)


@pytest.mark.parametrize('split', ['neck', 'layer4'])
@pytest.mark.parametrize('kind', ['retinanet', 'gfl'])
def test_losses_and_gradients_are_those_of_the_formulas(kind, split, wide_retinanet, gfl_teacher):
    student, source, bins = (
        (tiny_retinanet(), wide_retinanet, 1) if kind == 'retinanet' else (tiny_gfl(), gfl_teacher, 4)
    )
    distiller, inputs, samples = build(student, source, **({} if split == 'neck' else dict(split=split)))
    assert ('methods.semionlinekd.bridge.model.neck.lateral_convs.0.conv.weight' in distiller.state_dict()) == (
        split == 'layer4'
    )
    plain, expected = reference(distiller, inputs, samples, source, split, bins)
    found = named(distiller.loss(inputs, samples))
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert value.item() > 1e-4, name
        # GFL's own code rounds its distributions to single precision.
        rel = 1e-5 if kind == 'gfl' and name.endswith('box') else 1e-6
        assert found[name].item() == pytest.approx(value.item(), rel=rel), name
    own = dict(distiller.methods[0].bridge.model.named_parameters())
    weights = [dict(plain.named_parameters())[name] for name in own]
    of_bridge = [k for k in expected if not k.startswith('loss_bridge_student')]
    wanted = torch.autograd.grad(sum(expected[k] for k in of_bridge), weights, retain_graph=True)
    gradients = torch.autograd.grad(sum(found.values()), list(own.values()), retain_graph=True)
    for name, a, b in zip(own, gradients, wanted):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6 * max(1.0, b.abs().max().item()), msg=name)
    weights = list(distiller.student.parameters())
    (a, b) = (
        torch.autograd.grad(losses['loss_bridge_student'] + losses['loss_bridge_student_box'], weights)
        for losses in (found, expected)
    )
    for x, y in zip(a, b):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6 * max(1.0, y.abs().max().item()))


def test_a_two_stage_bridge_has_the_whole_detectors_loss(wide_faster_rcnn):
    distiller, inputs, samples = build(tiny_faster_rcnn(), wide_faster_rcnn, double=False)  # NMS takes no double
    plain = build_model(wide_faster_rcnn['cfg'])
    plain.load_state_dict(distiller.methods[0].bridge.whole_state())
    plain.train()
    plain.backbone.eval()
    expected = task_total(plain.loss(inputs, deepcopy(samples)))
    before = distiller.teacher.fingerprint()
    losses = distiller.loss(inputs, samples)
    assert named(losses)['loss_bridge_task'].item() == pytest.approx(expected.item(), rel=1e-5)
    distiller.parse_losses(losses)[0].backward()
    assert [n for n, p in distiller.named_parameters() if p.requires_grad and p.grad is None] == []
    assert distiller.teacher.fingerprint() == before


@pytest.mark.parametrize('split', ['neck', 'layer4'])
def test_the_teachers_body_runs_once_a_step(wide_retinanet, split):
    distiller, inputs, samples = build(tiny_retinanet(), wide_retinanet, split=split)
    calls = []
    for name in ('backbone.conv1', 'backbone.layer3', 'neck', 'bbox_head'):
        module = distiller.teacher.model.get_submodule(name)
        module.register_forward_hook(lambda *_args, name=name: calls.append(name))
    distiller.loss(inputs, samples)
    assert sorted(calls) == ['backbone.conv1', 'backbone.layer3', 'bbox_head', 'neck']


@pytest.mark.parametrize('split', ['neck', 'layer4'])
def test_a_teacher_that_pads_wider(padding_retinanet, split):
    distiller, inputs, samples = build(tiny_retinanet(), padding_retinanet, split=split)
    assert inputs.shape[-1] == 96
    losses = named(distiller.loss(inputs, samples))
    assert len(losses) == 7 and all(torch.isfinite(value) for value in losses.values())


def refused(student, teacher, tmp_path, match, **settings):
    with pytest.raises(ValueError, match=match):
        build_distiller(student, save_random_teacher(teacher, tmp_path), [dict(type='mmrkd.SemiOnlineKD', **settings)])


def test_what_differs_is_named(tmp_path):
    refused(tiny_retinanet(), tiny_retinanet(strides=(8, 16, 32, 64)), tmp_path, r'do not line up: outputs: student .*')
    refused(tiny_retinanet(), tiny_gfl(), tmp_path, r'do not line up: outputs: student .*priors: student .*box coder')
    other = tiny_retinanet(bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=(0.1, 0.1, 0.2, 0.2)))
    refused(tiny_retinanet(), other, tmp_path, r'do not line up: box coder: student .*1.0, 1.0.* teacher .*0.1, 0.1')
    refused(tiny_retinanet(), tiny_retinanet(num_classes=3), tmp_path, 'the student has 4 classes, the teacher 3')


def test_a_bridge_with_masks_needs_masks(tmp_path):
    cfg = tiny_faster_rcnn()
    head = dict(type='FCNMaskHead', num_convs=1, in_channels=16, conv_out_channels=8, num_classes=4)
    head['loss_mask'] = dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0)
    extractor = dict(cfg['roi_head']['bbox_roi_extractor'], roi_layer=dict(type='RoIAlign', output_size=14))
    cfg['roi_head'].update(mask_roi_extractor=extractor, mask_head=head)
    cfg['type'] = 'MaskRCNN'
    refused(tiny_faster_rcnn(), cfg, tmp_path, 'need masks, and the student is trained without')


def test_features_alone_need_no_heads_that_line_up(tmp_path):
    weights = dict(w_teacher_bridge=0.0, w_student_bridge=0.0, w_bridge_student=0.0)
    hint = dict(type='mmrkd.FeatureMSELoss')
    source = save_random_teacher(tiny_gfl(12, 24), tmp_path)
    distiller, inputs, samples = build(tiny_retinanet(), source, split='layer4', feature_loss=hint, **weights)
    assert set(named(distiller.loss(inputs, samples))) == {
        'loss_bridge_task', 'loss_teacher_bridge_feat', 'loss_student_bridge_feat', 'loss_bridge_student_feat',
    }  # fmt: skip


def test_on_detectors_it_starts_from_the_teacher_and_weighs_less(wide_retinanet):
    method = build_distiller(tiny_retinanet(), wide_retinanet, [dict(type='mmrkd.SemiOnlineKD')]).methods[0]
    assert (method.w_teacher_bridge, method.w_student_bridge, method.w_bridge_student) == (0.2, 0.2, 0.2)
    teacher = method.pair.teacher.model.bbox_head.state_dict()
    assert method.init == 'teacher'
    assert all(torch.equal(value, teacher[name]) for name, value in method.bridge.model.bbox_head.state_dict().items())
