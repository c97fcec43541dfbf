"""SemiOnlineKD on a classifier; ``test_semi_online_kd_detection.py`` has the detectors."""

from copy import deepcopy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from reference import affine, cross_entropy, level_mse, reached, second_teacher, softmax_kl, stir

from mmrkd.models.methods import SemiOnlineKD
from mmrkd.testing import build_distiller, build_model, classification_batch, model_inputs, tiny_classifier

TERMS = ('loss_bridge_task', 'loss_teacher_bridge', 'loss_student_bridge', 'loss_bridge_student')
HINT = dict(type='mmrkd.FeatureMSELoss', loss_weight=0.7)


def build(teacher, double=True, **settings):
    """A distiller in training mode whose bridge and student have opinions, and a batch for it."""
    distiller = build_distiller(tiny_classifier(8), teacher, [dict(type='mmrkd.SemiOnlineKD', **settings)])
    inputs, samples = model_inputs(distiller, classification_batch(6))
    stir(distiller.methods[0].bridge.model, seed=3)
    with torch.no_grad():
        distiller.student.head.fc.weight.mul_(20)
    if double:
        distiller.double()
        inputs = inputs.double()
    return distiller.train(), inputs, samples


class Reference:
    """The formulas, on a second model of the teacher's class that is run stage by stage."""

    def __init__(self, distiller, inputs, samples, source, teacher_training=False):
        self.labels = torch.cat([sample.gt_label for sample in samples])
        lower = second_teacher(source).train(teacher_training)
        with torch.no_grad():
            (self.f_t,) = lower.extract_feat(inputs)
            self.z_t = lower.head((self.f_t,))
            body = lower.backbone
            f3 = body.layer3(body.layer2(body.layer1(torch.relu(body.bn1(body.conv1(inputs))))))
        self.plain = build_model(source['cfg']).double().train()
        self.plain.load_state_dict(distiller.methods[0].bridge.whole_state())
        self.f_k = self.plain.backbone.layer4(f3).mean((2, 3))
        self.z_k = affine(self.f_k, dict(self.plain.named_parameters()), 'head.fc')
        (self.f_s,) = distiller.student.extract_feat(inputs)
        self.z_s = affine(self.f_s, dict(distiller.student.named_parameters()), 'head.fc')
        self.projection = dict(distiller.methods[0].named_parameters())

    def losses(self, w_task=1.0, w_bridge_task=1.0, w_teacher_bridge=1.0, w_student_bridge=1.0, w_bridge_student=1.0,
               tau=4.0, feature_loss=None):  # fmt: skip
        losses = {
            'loss': w_task * cross_entropy(self.z_s, self.labels),
            'loss_bridge_task': w_bridge_task * cross_entropy(self.z_k, self.labels),
            'loss_teacher_bridge': w_teacher_bridge * softmax_kl(self.z_t, self.z_k, tau),
            'loss_student_bridge': w_student_bridge * softmax_kl(self.z_s.detach(), self.z_k, tau),
            'loss_bridge_student': w_bridge_student * softmax_kl(self.z_k.detach(), self.z_s, tau),
        }
        if feature_loss is not None:
            p, w = affine(self.f_s, self.projection, 'projection.layers.0'), feature_loss['loss_weight']
            losses['loss_teacher_bridge_feat'] = w * level_mse([self.f_k], [self.f_t])
            losses['loss_student_bridge_feat'] = w * level_mse([self.f_k], [p.detach()])
            losses['loss_bridge_student_feat'] = w * level_mse([p], [self.f_k.detach()])
        return losses

    def gradients(self, distiller, losses):
        """Under the names that the distiller's parameters have."""
        lower = ('backbone.conv1', 'backbone.bn1', 'backbone.layer1', 'backbone.layer2', 'backbone.layer3')
        named = {
            f'methods.semionlinekd.bridge.model.{n}': p
            for n, p in self.plain.named_parameters()
            if not n.startswith(lower)
        }
        named.update({n: p for n, p in distiller.named_parameters() if '.bridge.' not in n})
        return dict(zip(named, torch.autograd.grad(sum(losses.values()), list(named.values()))))


def named(losses):
    return {name.replace('semionlinekd.', ''): value for name, value in losses.items()}


CASES = [
    {},
    dict(w_task=0.5, w_bridge_task=2.0, w_teacher_bridge=0.3, w_student_bridge=0.7, w_bridge_student=3.0, tau=2.0),
    dict(feature_loss=HINT),
]


@pytest.mark.parametrize('case', CASES, ids=str)
def test_losses_and_gradients_are_those_of_the_formulas(wide_classifier, case):
    distiller, inputs, samples = build(wide_classifier, **case)
    reference = Reference(distiller, inputs, samples, wide_classifier)
    expected = reference.losses(**case)
    found = named(distiller.loss(inputs, samples))
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert value.item() > 1e-3, name
        tolerance = 1e-6 if name.endswith('_feat') or 'task' in name else 1e-9  # features are compared in float32
        assert found[name].item() == pytest.approx(value.item(), rel=tolerance), name
    names, parameters = zip(*distiller.named_parameters())
    gradients = dict(zip(names, torch.autograd.grad(sum(found.values()), parameters)))
    wanted = reference.gradients(distiller, expected)
    assert set(gradients) == set(wanted)
    for name, gradient in wanted.items():
        scale = max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-6, atol=1e-6 * scale, msg=name)


def test_who_learns_from_whom(wide_classifier):
    """The student never sees the teacher; no target gets a gradient."""
    distiller, inputs, samples = build(wide_classifier, feature_loss=HINT)
    method = distiller.methods[0]
    parts = dict(
        student=list(distiller.student.backbone.parameters()),
        P=list(method.projection.parameters()),
        bridge=list(method.bridge.parameters()),
    )
    found = {name: reached(loss, parts) for name, loss in named(distiller.loss(inputs, samples)).items()}
    assert found == {
        'loss': {'student'},
        'loss_bridge_task': {'bridge'},
        'loss_teacher_bridge': {'bridge'},
        'loss_student_bridge': {'bridge'},
        'loss_bridge_student': {'student'},
        'loss_teacher_bridge_feat': {'bridge'},
        'loss_student_bridge_feat': {'bridge'},
        'loss_bridge_student_feat': {'student', 'P'},
    }


def train(distiller, inputs, samples, steps=3):
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        distiller.parse_losses(distiller.loss(inputs, samples))[0].backward()
        optimizer.step()
    return distiller


@pytest.mark.parametrize('init', ['random', 'teacher'])
def test_weights_and_buffers_of_the_teacher_never_move(wide_classifier, init):
    distiller, inputs, samples = build(wide_classifier, double=False, init=init)
    before, bridge = distiller.teacher.fingerprint(), deepcopy(distiller.methods[0].state_dict())
    train(distiller, inputs, samples)
    assert distiller.teacher.fingerprint() == before
    after = distiller.methods[0].state_dict()
    assert all(not torch.equal(value, bridge[name]) for name, value in after.items())


def test_batch_norm_of_the_teacher_drifts_as_in_the_release(wide_classifier):
    distiller, inputs, samples = build(wide_classifier, teacher_bn='train')
    model = second_teacher(wide_classifier).train()
    model(inputs)
    expected = Reference(distiller, inputs, samples, wide_classifier, teacher_training=True).losses()
    still = Reference(distiller, inputs, samples, wide_classifier).losses()
    found = named(distiller.loss(inputs, samples))
    for name in TERMS:
        assert found[name].item() == pytest.approx(expected[name].item(), rel=1e-6), name
        assert found[name].item() != pytest.approx(still[name].item(), rel=1e-3), name
    drifted = {**distiller.teacher.model.state_dict(), **distiller.methods[0].statistics.named_state()}
    for name, value in model.state_dict().items():  # the buffers are those after one batch, the weights the same
        torch.testing.assert_close(drifted[name], value, msg=name)
    assert not any(module.training for module in distiller.teacher.model.modules())


def test_predictions_do_not_move_the_drifting_statistics(wide_classifier):
    distiller, inputs, samples = build(wide_classifier, teacher_bn='train')
    before, statistics = distiller.teacher.fingerprint(), distiller.methods[0].statistics

    def drift():
        return {name: value.clone() for name, value in statistics.state_dict().items()}

    at_first = drift()
    for variant in ('teacher', 'bridge'):
        distiller.set_variant(variant)
        distiller.eval().predict(inputs, samples)
    assert all(torch.equal(value, at_first[name]) for name, value in drift().items())
    distiller.loss(inputs, samples)
    assert not any(torch.equal(value, at_first[name]) for name, value in drift().items())
    assert distiller.teacher.fingerprint() == before, 'the teacher itself never moves'


def test_a_drifting_teacher_is_seen_by_its_method_alone(wide_classifier):
    """KD beside it loses what it loses alone, and the other way round."""

    def losses(*methods):
        model = build_distiller(tiny_classifier(8), wide_classifier, methods, seed=3).double()
        inputs, samples = model_inputs(model, classification_batch())
        return [named_by(model.loss(inputs.double(), samples), name) for name in ('kd', 'semionlinekd')]

    kd, drifting = dict(type='mmrkd.KD'), dict(type='mmrkd.SemiOnlineKD', teacher_bn='train', init='teacher')
    both = losses(kd, drifting)
    assert both[0] == losses(kd)[0] and both[0]
    assert both[1] == losses(drifting)[1] and both[1]
    assert both == losses(drifting, kd)


def named_by(losses, name):
    return {key: value.item() for key, value in losses.items() if key.startswith(f'{name}.')}


def count_calls(**modules):
    calls = dict.fromkeys(modules, 0)

    def count(name):
        def hook(*_args):
            calls[name] += 1

        return hook

    for name, module in modules.items():
        module.register_forward_hook(count(name))
    return calls


def test_every_part_runs_once_a_step(wide_classifier):
    distiller, inputs, samples = build(wide_classifier)
    teacher, bridge, student = distiller.teacher.model, distiller.methods[0].bridge.model, distiller.student
    calls = count_calls(
        stem=teacher.backbone.conv1, lower=teacher.backbone.layer3, upper=teacher.backbone.layer4, head=teacher.head.fc,
        bridge=bridge.backbone.layer4, bridge_head=bridge.head.fc, student=student.backbone.layer4, own=student.head.fc,
    )  # fmt: skip
    distiller.loss(inputs, samples)
    assert set(calls.values()) == {1}, calls


def test_the_teachers_head_rests_where_no_one_listens(wide_classifier):
    distiller, inputs, samples = build(wide_classifier, w_teacher_bridge=0.0)
    calls = count_calls(head=distiller.teacher.model.head.fc)
    assert 'loss_teacher_bridge' not in named(distiller.loss(inputs, samples))
    assert calls == dict(head=0)


def test_the_paper_is_the_default(wide_classifier):
    method = build(wide_classifier)[0].methods[0]
    assert {weight: getattr(method, weight) for weight in method.weights} == dict(
        w_bridge_task=1, w_teacher_bridge=1, w_student_bridge=1, w_bridge_student=1, w_feature=0
    )
    assert method.task_weight == 1
    assert method.bridge.taps == ('backbone.layer3',) and method.bridge.init == 'random'
    assert method.teacher_bn == 'eval'


def test_every_trainable_parameter_gets_a_gradient(wide_classifier):
    for settings in ({}, dict(w_bridge_task=0.0, w_student_bridge=0.0), dict(feature_loss=HINT, split='layer2')):
        distiller, inputs, samples = build(wide_classifier, **settings)
        distiller.parse_losses(distiller.loss(inputs, samples))[0].backward()
        assert [n for n, p in distiller.named_parameters() if p.requires_grad and p.grad is None] == []


def test_without_weights_the_run_is_the_plain_one(wide_classifier):
    off = dict(w_bridge_task=0.0, w_teacher_bridge=0.0, w_student_bridge=0.0, w_bridge_student=0.0)
    distiller, inputs, samples = build(wide_classifier, double=False, **off)
    distiller.teacher.extract = None  # to call it would be an error
    plain = deepcopy(distiller.student)
    assert not distiller.methods[0].active
    train(distiller, inputs, samples)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        plain.loss(inputs, samples)['loss'].backward()
        optimizer.step()
    assert all(torch.equal(v, distiller.student.state_dict()[k]) for k, v in plain.state_dict().items())


@pytest.mark.parametrize('init', ['random', 'teacher'])
def test_the_student_starts_as_it_would_alone(wide_classifier, init):
    distiller = build_distiller(tiny_classifier(8), wide_classifier, [dict(type='mmrkd.SemiOnlineKD', init=init)], 7)
    plain = build_model(tiny_classifier(8), 7)
    assert all(torch.equal(v, distiller.state_dict()[k]) for k, v in plain.state_dict().items())
    assert set(distiller.state_dict()) - set(plain.state_dict()) == {
        k for k in distiller.state_dict() if k.startswith('methods.semionlinekd.bridge.model.')
    }


def test_the_bridge_has_a_learning_rate_of_its_own(wide_classifier):
    distiller, inputs, samples = build(wide_classifier, double=False)
    before = deepcopy(distiller.state_dict())
    wrapper = build_optim_wrapper(
        distiller,
        dict(
            type='OptimWrapper',
            optimizer=dict(type='SGD', lr=0.1),
            paramwise_cfg=dict(custom_keys={'methods.semionlinekd.bridge': dict(lr_mult=0.0)}),
        ),
    )
    rates = {id(p): group['lr'] for group in wrapper.optimizer.param_groups for p in group['params']}
    for name, parameter in distiller.named_parameters():
        assert rates.pop(id(parameter)) == (0.0 if name.startswith('methods.semionlinekd.bridge.') else 0.1), name
    assert not rates
    wrapper.update_params(distiller.parse_losses(distiller.loss(inputs, samples))[0])
    moved = {n for n, p in distiller.state_dict().items() if not torch.equal(p, before[n]) and 'running' not in n}
    assert not any('bridge' in name and 'batches' not in name for name in moved)
    assert 'backbone.conv1.weight' in moved


def test_mixed_precision_trains_in_finite_steps(wide_classifier):
    distiller, inputs, samples = build(wide_classifier, double=False, feature_loss=HINT)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        narrow = named(distiller.loss(inputs, samples))
    sum(narrow.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in distiller.parameters())
    exact = named(build_and_lose(wide_classifier))
    assert all(narrow[name].dtype == torch.float32 for name in exact)
    for name, value in exact.items():
        assert narrow[name].item() == pytest.approx(value.item(), rel=0.1), name


def build_and_lose(teacher):
    distiller, inputs, samples = build(teacher, double=False, feature_loss=HINT)
    return distiller.loss(inputs, samples)


def test_predictions_of_the_bridge(wide_classifier):
    distiller, inputs, samples = build(wide_classifier, double=False)
    assert tuple(distiller.variants) == ('student', 'teacher', 'bridge')
    plain = build_model(wide_classifier['cfg']).eval()
    plain.load_state_dict(distiller.methods[0].bridge.whole_state())
    distiller.eval().set_variant('bridge')
    found = [sample.pred_score for sample in distiller(inputs, deepcopy(samples), mode='predict')]
    expected = [sample.pred_score for sample in plain(inputs, deepcopy(samples), mode='predict')]
    assert all(torch.equal(a, b) for a, b in zip(found, expected))


def test_the_bridge_sees_the_teachers_own_pixels(wide_classifier):
    """With the teacher's weights it is the teacher, whose normalisation is not the student's."""
    source = deepcopy(wide_classifier)
    source['cfg']['data_preprocessor'].update(mean=[100.0, 110.0, 120.0], std=[50.0, 60.0, 70.0], to_rgb=False)
    method = dict(type='mmrkd.SemiOnlineKD', init='teacher')
    distiller = build_distiller(tiny_classifier(8), source, [method]).eval()
    inputs, samples = model_inputs(distiller, classification_batch())
    found = {}
    for variant in ('teacher', 'bridge'):
        distiller.set_variant(variant)
        found[variant] = torch.stack([s.pred_score for s in distiller(inputs, deepcopy(samples), mode='predict')])
    assert torch.equal(found['bridge'], found['teacher'])
    assert not torch.equal(found['teacher'], distiller.teacher.model.head(distiller.teacher.extract(inputs)).softmax(1))


def test_arguments_are_checked(wide_classifier, tmp_path):
    with pytest.raises(ValueError, match="teacher_bn must be 'eval' or 'train', found 'off'"):
        SemiOnlineKD(teacher_bn='off')
    with pytest.raises(ValueError, match='feature_loss needs a bridge with features of its own'):
        build(wide_classifier, split='neck', feature_loss=HINT)
    with pytest.raises(ValueError, match='the student has 5 classes, the teacher 4'):
        build_distiller(tiny_classifier(8, 5), wide_classifier, [dict(type='mmrkd.SemiOnlineKD')])
