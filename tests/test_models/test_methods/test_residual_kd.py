import hashlib
from copy import deepcopy

import pytest
import torch
from mmengine.optim import OptimWrapper

from mmrkd.models import ResidualKD
from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    model_inputs,
    paired,
    tiny_classifier,
    tiny_retinanet,
)

STUDENTS = {
    'classifier': (paired(tiny_classifier(8), 6, 3), classification_batch()),
    'retinanet': (paired(tiny_retinanet(8), 6, 3), detection_batch()),
}


@pytest.fixture
def teachers(wide_classifier, equal_classifier, wide_retinanet):
    return dict(classifier=wide_classifier, equal=equal_classifier, retinanet=wide_retinanet)


def with_neck(cfg):
    """The plain student with a light assistant behind its neck."""
    cfg = deepcopy(cfg)
    vectors = cfg['type'] == 'ImageClassifier'
    light = dict(type='mmrkd.ResidualAssistantNeck', in_channels=64 if vectors else 16, num_levels=1 if vectors else 3)
    cfg['neck'] = [cfg['neck'], dict(light, vectors=True)] if vectors else dict(light, neck=cfg['neck'])
    return cfg


def build(student, teacher, batch, others=(), **arguments):
    """A distiller in double precision, with buffers that stay as they are, and a batch for it."""
    distiller = build_distiller(student, teacher, [dict(type='mmrkd.ResidualKD', **arguments), *others], seed=1)
    distiller = distiller.double().eval()
    inputs, samples = model_inputs(distiller, batch)
    return distiller, inputs.double(), samples


def parts(distiller, inputs, stage='3'):
    """phi(F_S), F_A and F_T of the stage, without the method."""
    backbone = distiller.student.backbone
    index = list(backbone.sums).index(stage)
    add = backbone.sums[stage]
    own, other = add.student(backbone.student(inputs)[index]), add.assistant(backbone.assistant(inputs)[index])
    teacher = distiller.teacher.model.backbone(inputs)
    return own, other, next(f for f in teacher if f.shape[-1] == own.shape[-1])


def lifted(layer, feat, bias=True):
    feat = torch.einsum('oi,nihw->nohw', layer.weight[..., 0, 0], feat)
    return feat + layer.bias.view(1, -1, 1, 1) if bias else feat


def mse(a, b):
    return (a - b).square().mean().item()


class TestLosses:
    def test_equal_widths_are_the_paper(self, teachers):
        """No P: L_S is the mimicry loss, L_A the error of A against what S leaves over."""
        student, batch = STUDENTS['classifier']
        weights = dict(w_student=2.0, w_assistant=3.0, standardize=False)
        distiller, inputs, samples = build(student, teachers['equal'], batch, **weights)
        assert list(distiller.methods[0].parameters()) == []
        own, other, target = parts(distiller, inputs)
        found = distiller.loss(inputs, samples)
        assert set(found) == {'loss', 'residualkd.loss_student', 'residualkd.loss_assistant'}
        assert found['residualkd.loss_student'].item() == pytest.approx(2 * mse(own, target), rel=1e-6)
        assert found['residualkd.loss_assistant'].item() == pytest.approx(3 * mse(other, target - own), rel=1e-6)

    def test_other_widths_are_lifted_and_still_add_up(self, teachers):
        student, batch = STUDENTS['classifier']
        distiller, inputs, samples = build(student, teachers['classifier'], batch, standardize=False)
        lift = distiller.methods[0].projection.layers[0]
        own, other, target = parts(distiller, inputs)
        found = distiller.loss(inputs, samples)
        assert found['residualkd.loss_student'].item() == pytest.approx(mse(lifted(lift, own), target), rel=1e-6)
        whole = mse(lifted(lift, own + other), target)  # of S and A together
        assert found['residualkd.loss_assistant'].item() == pytest.approx(whole, rel=1e-6)

    def test_on_several_stages_in_units_of_the_teacher(self, teachers):
        student, batch = STUDENTS['retinanet']
        distiller, inputs, samples = build(student, teachers['retinanet'], batch, stages=[2, 3])
        over, expected = dict(dim=(0, 2, 3), keepdim=True), [0.0, 0.0]
        for lift, stage in zip(distiller.methods[0].projection.layers, '23'):
            own, other, target = parts(distiller, inputs, stage)
            std = target.var(unbiased=False, **over).clamp(min=1e-6).sqrt()
            target = (target - target.mean(**over)) / std
            expected[0] += mse(lifted(lift, own), target) / 2
            expected[1] += mse(lifted(lift, other, bias=False), target - lifted(lift, own)) / 2
        found = distiller.loss(inputs, samples)
        for name, value in zip(('student', 'assistant'), expected):
            assert found[f'residualkd.loss_{name}'].item() == pytest.approx(value, rel=1e-4)

    def test_the_student_loses_what_the_hint_would(self, teachers):
        """L_S is the loss of FitNets on the same features with the same projection."""
        student, batch = STUDENTS['retinanet']
        student = with_neck(tiny_retinanet(8))
        distiller, inputs, samples = build(
            student, teachers['retinanet'], batch, w_assistant=0.0, others=[dict(type='mmrkd.FitNets')]
        )
        residual, hint = distiller.methods.values()
        for lift in residual.projection.layers:
            lift.load_state_dict(hint.projection.layers[0].state_dict())
        with distiller.student.neck.unassisted():
            found = distiller.loss(inputs, samples)
        assert found['residualkd.loss_student'].item() == pytest.approx(found['fitnets.loss_feat'].item(), rel=1e-9)
        assert 'residualkd.loss_assistant' not in found

    def test_nothing_is_lost_where_nothing_is_left(self, teachers):
        """A gives what S misses: L_A is 0. S gives what the teacher gives: L_S is 0."""
        student, batch = STUDENTS['classifier']
        distiller, inputs, samples = build(student, teachers['equal'], batch, standardize=False)
        own, other, target = parts(distiller, inputs)
        adding = distiller.student.backbone.sums['3']
        give(adding.assistant, target - own)
        assert distiller.loss(inputs, samples)['residualkd.loss_assistant'].item() < 1e-12  # losses are in float32
        give(adding.student, target)
        found = distiller.loss(inputs, samples)
        assert found['residualkd.loss_student'].item() == 0
        assert found['residualkd.loss_assistant'].item() == pytest.approx(mse(target - own, 0 * own), rel=1e-6)

    @pytest.mark.parametrize('distance', ['cosine', 'attention'])
    def test_other_distances(self, teachers, distance):
        student, batch = STUDENTS['classifier']
        distiller, inputs, samples = build(student, teachers['equal'], batch, distance=distance)
        for layer in distiller.student.backbone.sums['3'].children():
            layer.bn.bias.data.fill_(0.1)  # a zero vector has no direction
        own, other, target = parts(distiller, inputs)

        def distance_of(a, b):
            if distance == 'cosine':
                return (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).mean().item()
            a, b = (f.square().sum(1).flatten(1) for f in (a, b))
            return (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).square().mean().item()

        found = distiller.loss(inputs, samples)
        assert found['residualkd.loss_student'].item() == pytest.approx(distance_of(own, target), rel=1e-5)
        assert found['residualkd.loss_assistant'].item() == pytest.approx(distance_of(other, target - own), rel=1e-5)

    def test_on_pooled_vectors_and_on_the_levels_of_a_neck(self, teachers):
        for name, plain in (('equal', tiny_classifier(8)), ('retinanet', tiny_retinanet(8))):
            batch = STUDENTS['retinanet' if name == 'retinanet' else 'classifier'][1]
            distiller, inputs, samples = build(with_neck(plain), teachers[name], batch, standardize=False)
            neck = distiller.student.neck[1] if name == 'equal' else distiller.student.neck
            with neck.unassisted():
                own = distiller.student.extract_feat(inputs)
            target = distiller.teacher.model.extract_feat(inputs)
            lifts = distiller.methods[0].projection.layers
            assert len(lifts) == len(target) == {'equal': 1, 'retinanet': 3}[name]
            own = own if name == 'equal' else [lifted(lift, f) for lift, f in zip(lifts, own)]
            expected = sum(mse(o, t) for o, t in zip(own, target)) / len(target)
            found = distiller.loss(inputs, samples)
            assert found['residualkd.loss_student'].item() == pytest.approx(expected, rel=1e-5)


def give(module, value):
    module.register_forward_hook(lambda *_: value.detach())


class TestGradients:
    def gradients(self, distiller, loss):
        distiller.zero_grad()
        loss.backward(retain_graph=True)
        return {name for name, p in distiller.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}

    @pytest.mark.parametrize('name', STUDENTS)
    def test_each_loss_trains_its_own_part(self, teachers, name):
        student, batch = STUDENTS[name]
        distiller, inputs, samples = build(student, teachers[name], batch, stages='all')
        before = distiller.teacher.fingerprint()
        losses = distiller.loss(inputs, samples)
        by_student = self.gradients(distiller, losses['residualkd.loss_student'])
        by_assistant = self.gradients(distiller, losses['residualkd.loss_assistant'])
        assert {n for n in by_student if '.assistant.' in n} == set()
        assert any(n.startswith('methods.residualkd.projection') for n in by_student)
        assert any(n.startswith('backbone.student.conv1') for n in by_student)
        assert {n for n in by_assistant if '.assistant.' not in n} == set()
        assert any('sums.3.assistant' in n for n in by_assistant)
        assert any(n.startswith('backbone.assistant.conv1') for n in by_assistant)
        assert not any('head' in n or 'neck' in n for n in by_student | by_assistant)
        assert all(p.grad is None for p in distiller.teacher.model.parameters())
        assert distiller.teacher.fingerprint() == before

    def test_the_assistant_of_a_neck_does_not_reach_the_student(self, teachers):
        distiller, inputs, samples = build(with_neck(tiny_retinanet(8)), teachers['retinanet'], detection_batch())
        losses = distiller.loss(inputs, samples)
        by_assistant = self.gradients(distiller, losses['residualkd.loss_assistant'])
        assert by_assistant and all(n.startswith('neck.assistant') for n in by_assistant)

    @pytest.mark.parametrize('weights', [dict(), dict(w_student=0.0), dict(w_assistant=0.0)])
    def test_every_trainable_parameter_gets_a_gradient(self, teachers, weights):
        student, batch = STUDENTS['retinanet']
        distiller, inputs, samples = build(student, teachers['retinanet'], batch, **weights)
        distiller.parse_losses(distiller.loss(inputs, samples))[0].backward()
        assert [n for n, p in distiller.named_parameters() if p.requires_grad and p.grad is None] == []


def digest(module, *ending):
    """A hash of the weights and buffers whose name has one of the parts in it."""
    hashed = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not ending or any(part in f'.{name}' for part in ending):
            hashed.update(value.numpy().tobytes())
    return hashed.hexdigest()


class TestPhases:
    PARTS = {'student': ('.backbone.student.', '.student.weight', '.student.bias'), 'assistant': ('.assistant.',)}
    LEARNING = {'student': ('student',), 'assistant': ('assistant',), 'head': ('neck', 'head')}

    def digests(self, distiller):
        student = distiller.student
        parts = {
            name: digest(student.backbone, *(p.replace('.backbone', '') for p in self.PARTS[name]))
            for name in ('student', 'assistant')
        }
        return dict(
            parts,
            neck=digest(student.neck),
            head=digest(student.bbox_head),
            lifts=digest(distiller.methods[0].projection.layers),
        )

    def test_each_phase_moves_its_own_part_and_no_other(self, teachers):
        """Hashes of weights and buffers, with momentum and weight decay that would move what has a gradient of 0."""
        student, batch = STUDENTS['retinanet']
        student = deepcopy(student)
        student['neck']['norm_cfg'] = dict(type='BN')
        method = dict(type='mmrkd.ResidualKD', scheme='progressive', phase_epochs=(1, 2))
        distiller = build_distiller(student, teachers['retinanet'], [method], seed=1)
        method, optimizer = distiller.methods[0], torch.optim.SGD(distiller.parameters(), 0.01, 0.9, weight_decay=0.1)
        inputs, samples = model_inputs(distiller, batch)
        for phase in ('student', 'assistant', 'head'):
            method.enter_phase(phase)
            before = self.digests(distiller)
            for _ in range(2):
                distiller.train()
                method.hold_frozen()
                losses = distiller.loss(inputs, samples)
                distiller.parse_losses(losses)[0].backward()
                idle = [n for n, p in distiller.named_parameters() if p.requires_grad and p.grad is None]
                assert idle == [], 'DDP would wait for them'
                optimizer.step()
                optimizer.zero_grad()
            moved = {name for name, value in self.digests(distiller).items() if value != before[name]}
            assert moved == {*self.LEARNING[phase], *(['lifts'] if phase == 'student' else [])}, phase

    @pytest.mark.parametrize('before, after', [('student', 'assistant'), ('assistant', 'head')])
    def test_gradients_that_accumulated_before_a_phase_do_not_move_what_it_freezes(self, teachers, before, after):
        student, batch = STUDENTS['retinanet']
        method = dict(type='mmrkd.ResidualKD', scheme='progressive', phase_epochs=(1, 2))
        distiller = build_distiller(student, teachers['retinanet'], [method], seed=1).train()
        optimizer = OptimWrapper(torch.optim.SGD(distiller.parameters(), 0.1), accumulative_counts=2)
        (method,) = [module for module in distiller.modules() if isinstance(module, ResidualKD)]
        method.enter_phase(before)
        distiller.train_step(deepcopy(batch), optimizer)  # half a step: the gradients wait
        waiting = {name for name, p in distiller.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        weights = {name: p.detach().clone() for name, p in distiller.named_parameters()}
        method.enter_phase(after)
        method.hold_frozen()
        frozen = {
            name for name, p in distiller.named_parameters() if not p.requires_grad and '.projection.' not in name
        }
        assert waiting & frozen
        distiller.train_step(deepcopy(batch), optimizer)
        moved = {name for name, p in distiller.named_parameters() if not torch.equal(p, weights[name])}
        assert moved and not moved & frozen

    def test_nor_the_projection(self, teachers):
        student, batch = STUDENTS['retinanet']
        method = dict(type='mmrkd.ResidualKD', scheme='progressive', phase_epochs=(1, 2))
        distiller = build_distiller(student, teachers['retinanet'], [method], seed=1).train()
        (method,) = [module for module in distiller.modules() if isinstance(module, ResidualKD)]
        method.enter_phase('student')
        distiller.parse_losses(distiller.loss(*model_inputs(distiller, deepcopy(batch))))[0].backward()
        assert any(p.grad is not None for p in method.projection.parameters())
        method.enter_phase('assistant')
        assert all(p.grad is None for p in method.projection.parameters())

    def test_terms_and_weights_of_each_phase(self, teachers):
        student, batch = STUDENTS['classifier']
        distiller, inputs, samples = build(
            student, teachers['classifier'], batch, scheme='progressive', phase_epochs=(1, 2)
        )
        method, terms = distiller.methods[0], {}
        plain = distiller.student(inputs, samples, mode='loss')['loss'].item()
        for phase in ('student', 'assistant', 'head'):
            method.enter_phase(phase)
            losses = distiller.loss(inputs, samples)
            terms[phase] = set(losses) - {'loss'}
            assert losses['loss'].item() == (pytest.approx(plain) if phase == 'head' else 0.0)
        expected = {name: {f'residualkd.loss_{name}'} for name in ('student', 'assistant')}
        assert terms == dict(expected, head=set())

    def test_finetune_lets_all_learn_in_the_last_phase(self, teachers):
        student, batch = STUDENTS['classifier']
        distiller, *_ = build(
            student, teachers['classifier'], batch, scheme='progressive', phase_epochs=(1, 2), finetune=True
        )
        distiller.methods[0].enter_phase('assistant')
        distiller.methods[0].enter_phase('head')
        assert all(p.requires_grad for p in distiller.student.parameters())
        assert not any(p.requires_grad for p in distiller.methods[0].parameters()), 'no term trains P any more'

    def test_what_could_not_learn_before_does_not_learn(self, teachers):
        student, batch = STUDENTS['retinanet']
        student = deepcopy(student)
        student['backbone']['student']['frozen_stages'] = 1
        distiller, *_ = build(student, teachers['retinanet'], batch, scheme='progressive', phase_epochs=(1, 2))
        for phase in ('student', 'assistant', 'head', 'student'):
            distiller.methods[0].enter_phase(phase)
            assert not any(p.requires_grad for p in distiller.student.backbone.student.layer1.parameters())
        assert all(p.requires_grad for p in distiller.student.backbone.student.layer2.parameters())

    def test_phases_begin_after_their_epochs(self):
        method = ResidualKD(scheme='progressive', phase_epochs=(2, 5))
        expected = ['student'] * 2 + ['assistant'] * 3 + ['head'] * 2
        assert [method.phase_of(epoch) for epoch in range(7)] == expected

    def test_without_the_hook_it_does_not_train(self, teachers):
        student, batch = STUDENTS['classifier']
        distiller, inputs, samples = build(
            student, teachers['classifier'], batch, scheme='progressive', phase_epochs=(1, 2)
        )
        with pytest.raises(ValueError, match='needs mmrkd.PhaseHook'):
            distiller.loss(inputs, samples)


class TestVariants:
    @pytest.mark.parametrize('assistant', ['pair', 'neck'])
    def test_integrated_is_the_student_and_student_alone_has_no_assistant(self, teachers, assistant):
        student = STUDENTS['retinanet'][0] if assistant == 'pair' else with_neck(tiny_retinanet(8))
        distiller, inputs, samples = build(student, teachers['retinanet'], detection_batch())
        distiller, inputs = distiller.float(), inputs.float()  # NMS wants it
        assert tuple(distiller.variants) == ('student', 'teacher', 'integrated', 'student_alone')
        scores = {}
        for variant in ('student', 'integrated', 'student_alone'):
            distiller.set_variant(variant)
            found = distiller(inputs, deepcopy(samples), mode='predict')
            scores[variant] = torch.cat([s.pred_instances.scores for s in found])
        module = distiller.methods[0].assisted
        with module.unassisted():
            expected = distiller.student(inputs, deepcopy(samples), mode='predict')
        assert torch.equal(scores['integrated'], scores['student'])
        assert torch.equal(scores['student_alone'], torch.cat([s.pred_instances.scores for s in expected]))
        assert not torch.equal(scores['student_alone'], scores['student'])

    def test_without_an_assistant_there_is_neither(self, teachers):
        plain = tiny_classifier(8)
        plain['backbone'] = dict(type='mmrkd.ResidualPairBackbone', student=plain['backbone'], assistant=None)
        alone = dict(w_assistant=0.0, standardize=False)
        distiller, inputs, samples = build(plain, teachers['equal'], classification_batch(), **alone)
        assert tuple(distiller.variants) == ('student', 'teacher')
        target = distiller.teacher.model.backbone(inputs)[0]
        expected = mse(distiller.student.backbone.student(inputs)[0], target)
        assert distiller.loss(inputs, samples)['residualkd.loss_student'].item() == pytest.approx(expected, rel=1e-6)
        with pytest.raises(ValueError, match='no assistant'):
            distiller.set_variant('student_alone')


class TestRefusals:
    @pytest.mark.parametrize(
        'arguments, message',
        [
            (dict(distance='l1'), "distance must be one of .*found 'l1'"),
            (dict(scheme='both'), "scheme must be one of .*found 'both'"),
            (dict(distance='cosine', standardize=True), 'has no unit'),
            (dict(scheme='progressive'), 'two rising epochs'),
            (dict(scheme='progressive', phase_epochs=(5, 5)), 'two rising epochs'),
            (dict(phase_epochs=(1, 2)), 'nothing otherwise'),
            (dict(scheme='progressive', phase_epochs=(1, 2), w_student=0), 'both weights must not be 0'),
        ],
    )
    def test_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            ResidualKD(**arguments)

    def test_pairs_that_do_not_fit(self, teachers):
        student, batch = STUDENTS['retinanet']
        teacher = teachers['retinanet']
        with pytest.raises(ValueError, match='needs a student with one assistant, found none'):
            build(tiny_retinanet(), teacher, batch)
        with pytest.raises(ValueError, match="stages must be 'last', 'all' or some of"):
            build(student, teacher, batch, stages=[0])
        with pytest.raises(ValueError, match="Use stages='all'"):
            build(student, teacher, batch, scheme='progressive', phase_epochs=(1, 2), stages='last')
        with pytest.raises(ValueError, match='has no assistant'):
            alone = deepcopy(student)
            alone['backbone']['assistant'] = None
            build(alone, teacher, batch)
        several = deepcopy(STUDENTS['classifier'][0])
        for part in ('student', 'assistant'):
            several['backbone'][part]['out_indices'] = (2, 3)
        several['backbone']['out_channels'] = [32, 64]
        with pytest.raises(ValueError, match='no counterpart of the same stride'):
            build(several, teachers['classifier'], classification_batch(), stages='all')


def test_it_combines_with_other_methods(teachers):
    """ERA has a variant of the same name: then the method's stands in front."""
    student, batch = STUDENTS['retinanet']
    others = [dict(type='mmrkd.ERA', w_kd=0.0), dict(type='mmrkd.AttentionTransfer')]
    distiller, inputs, samples = build(student, teachers['retinanet'], batch, others=others)
    losses = distiller.loss(inputs, samples)
    assert {'residualkd.loss_student', 'attentiontransfer.loss_at', 'era.loss_feat'} <= set(losses)
    assert {'residualkd.integrated', 'era.integrated', 'student_alone', 'blend'} <= set(distiller.variants)
    distiller, inputs, scores = distiller.float(), inputs.float(), {}
    for variant in ('student', 'residualkd.integrated', 'era.integrated'):
        distiller.set_variant(variant)
        scores[variant] = distiller(inputs, deepcopy(samples), mode='predict')[0].pred_instances.scores
    assert torch.equal(scores['student'], scores['residualkd.integrated'])
    assert not torch.equal(scores['student'], scores['era.integrated'])
