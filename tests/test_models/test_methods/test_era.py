"""ERA on pooled features of a classifier; ``test_era_detection.py`` has the detectors."""

from itertools import product

import pytest
import torch
from reference import (
    affine,
    cross_entropy,
    era_losses,
    mbrnet,
    partial_sums,
    reached,
    second_teacher,
    softmax_kl,
    stir,
)
from torch import nn

from mmrkd.models.methods import ERA
from mmrkd.testing import (
    build_distiller,
    classification_batch,
    model_inputs,
    save_random_teacher,
    tiny_classifier,
)

# The ImageNet recipe.
W_TASK, W_KD, TAU, W_FEAT, W_RES, HALVING = 1.0, 2.0, 1.0, 5.0, 1.0, (1, 0.5, 0.25, 0.125)
RECIPE = dict(w_kd=W_KD, tau=TAU, w_feat=W_FEAT, w_res=W_RES, twi_kd=False)
JUDGED = {
    'all': lambda n: tuple(range(n + 1)),
    'ends': lambda n: (0, n),
    'last': lambda n: (n,),
    'none': lambda n: (),
}


def build(teacher, double=True, **era):
    """A distiller in training mode, its branches stirred, and a batch for it."""
    era = {**RECIPE, 'w_twi': era.get('w_task', 1.0), **era}
    distiller = build_distiller(tiny_classifier(8), teacher, [dict(type='mmrkd.ERA', **era)])
    inputs, samples = model_inputs(distiller, classification_batch(6))
    stir(distiller.methods[0].neck, seed=3)
    with torch.no_grad():
        distiller.student.head.fc.weight.mul_(20)  # so that its logits differ, as the teacher's do
    if double:
        distiller.double()
        inputs = inputs.double()
    return distiller.train(), inputs, samples


class Reference:
    """Everything that the formulas need, taken from the student's features on."""

    def __init__(self, distiller, inputs, samples, teacher, training=True):
        model = second_teacher(teacher)
        neck = distiller.methods[0].neck
        self.weights = {**dict(neck.named_parameters()), **dict(neck.named_buffers())}
        self.student_head = dict(distiller.student.head.named_parameters())
        self.teacher_head = {k: v.detach() for k, v in model.head.named_parameters()}
        self.labels = torch.cat([sample.gt_label for sample in samples])
        (self.f_s,) = distiller.student.extract_feat(inputs)
        with torch.no_grad():
            (self.f_t,) = model.extract_feat(inputs)
        self.z_s = affine(self.f_s, self.student_head, 'fc')
        self.z_t = affine(self.f_t, self.teacher_head, 'fc')
        self.training = training

    def steps(self, num_branches=4, num_blocks=2, wiring='parallel', **how):
        depths = [num_blocks] * num_branches
        return mbrnet([self.f_s], self.weights, num_branches, depths, wiring, training=self.training, **how)

    def judge(self, estimate):
        logits = affine(estimate[0], self.teacher_head, 'fc')
        return cross_entropy(logits, self.labels), logits

    def losses(
        self,
        num_branches=4,
        w_task=W_TASK,
        w_kd=W_KD,
        tau=TAU,
        w_feat=W_FEAT,
        w_res=W_RES,
        w_twi=None,
        branch_weights=HALVING,
        twi_on='all',
        twi_kd=False,
        num_blocks=2,
        wiring='parallel',
        neck=None,
    ):
        initial, increments = self.steps(num_branches, num_blocks, wiring, **(neck or {}))
        losses = era_losses(
            initial,
            increments,
            [self.f_t],
            self.judge,
            lambda z_p, z_q: softmax_kl(z_p, z_q, tau),
            self.z_s,
            self.z_t,
            scales=branch_weights,
            w_kd=w_kd,
            w_feat=w_feat,
            w_res=w_res,
            w_twi=w_task if w_twi is None else w_twi,
            judged=JUDGED[twi_on](num_branches) if w_twi != 0 else (),
            twi_kd=twi_kd,
        )
        losses = {f'era.{name}': value for name, value in losses.items()}
        return {'loss': w_task * cross_entropy(self.z_s, self.labels), **losses}


CASES = [
    *(dict(num_branches=n) for n in (1, 2, 3, 4)),
    dict(branch_weights=[1.0, 1.0, 1.0, 1.0]),
    dict(num_branches=3, branch_weights=[0.2, 2.0, 0.7]),
    dict(w_kd=0.0),
    dict(w_kd=1.0, tau=4.0, w_task=0.9),
    dict(twi_kd=True),
    dict(twi_kd=True, tau=3.0, w_task=0.9, num_branches=2),
    dict(twi_kd=True, w_twi=0.4, twi_on='ends'),
    dict(w_task=0.9),
    dict(w_task=0.5, w_twi=2.0),
    *(dict(twi_on=twi_on) for twi_on in ('ends', 'last', 'none')),
    dict(w_twi=0.0, w_feat=3.0, w_res=0.3),
    dict(w_feat=0.0),
    dict(w_res=0.0),
    dict(num_blocks=3, num_branches=2),
    dict(wiring='accumulate', num_branches=3, neck=dict(act='gelu', norm='LN', shared_close=True)),
    dict(wiring='cascade', num_branches=3, neck=dict(act='prelu')),
]


@pytest.mark.parametrize('case', CASES, ids=str)
def test_loss_dictionary_is_the_formula(wide_classifier, case):
    distiller, inputs, samples = build(wide_classifier, **case)
    found = distiller.loss(inputs, samples)
    expected = Reference(distiller, inputs, samples, wide_classifier).losses(**case)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert value.item() > 1e-4, name
        assert found[name].item() == pytest.approx(value.item(), rel=1e-6, abs=1e-6), name


@pytest.mark.parametrize('num_branches', [1, 2, 3, 4])
def test_loss_dictionary_at_equal_widths(equal_classifier, num_branches):
    distiller, inputs, samples = build(equal_classifier, num_branches=num_branches)
    assert not any('close' in name for name, _ in distiller.methods.named_parameters())
    found = distiller.loss(inputs, samples)
    expected = Reference(distiller, inputs, samples, equal_classifier).losses(num_branches)
    assert {k: v.item() for k, v in found.items()} == pytest.approx({k: v.item() for k, v in expected.items()})


def test_the_default_has_soft_targets_at_every_step(wide_classifier):
    method = build_distiller(tiny_classifier(8), wide_classifier, [dict(type='mmrkd.ERA')]).methods[0]
    found = (method.task_weight, method.w_kd, method.w_feat, method.w_res, method.w_twi, tuple(method.branch_weights))
    assert found == (1.0, 1.0, 5.0, 1.0, 0.1, HALVING)
    assert method.mimicry.temperature == 4.0 and method.twi_kd
    assert method.judged_steps == (0, 1, 2, 3, 4) and not method.detach_student
    assert [len(blocks) for blocks in method.neck.branches] == [2, 2, 2, 2]
    assert type(method.neck.branches[0][0].norms[0]) is nn.BatchNorm1d
    assert method.neck.standardizer is None


@pytest.mark.parametrize('case', [{}, dict(twi_kd=True, w_task=0.9, twi_on='ends', tau=2.0)], ids=str)
def test_gradient_of_the_whole_loss_is_that_of_the_formula(wide_classifier, case):
    distiller, inputs, samples = build(wide_classifier, **case)
    names, parameters = zip(*distiller.named_parameters())
    found = torch.autograd.grad(sum(distiller.loss(inputs, samples).values()), parameters)
    losses = Reference(distiller, inputs, samples, wide_classifier).losses(**case)
    expected = torch.autograd.grad(sum(losses.values()), parameters)
    for name, a, b in zip(names, found, expected):
        # Differences of features are rounded to single precision on the way.
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6 * max(1.0, b.abs().max().item()), msg=name)


def test_pooled_features_in_units_of_the_teacher(wide_classifier):
    distiller, inputs, samples = build(wide_classifier, standardize=True, twi_on='none')
    found = distiller.loss(inputs, samples)
    reference = Reference(distiller, inputs, samples, wide_classifier)
    std = reference.f_t.var(0, unbiased=False).clamp(min=1e-6).sqrt()  # a dead channel has no spread
    reference.f_t = (reference.f_t - reference.f_t.mean(0)) / std
    expected = reference.losses(twi_on='none')
    for name in ('era.loss_feat', 'era.loss_res_1', 'era.loss_res_4'):
        assert found[name].item() == pytest.approx(expected[name].item(), rel=1e-4), name


def groups(distiller):
    """Trainable parts of the parallel network with a closing layer for each branch."""
    neck = distiller.methods[0].neck
    return {
        'body': list(distiller.student.backbone.parameters()),
        'head': list(distiller.student.head.parameters()),
        'P': list(neck.projection.parameters()),
        **{
            f'branch {i + 1}': [*neck.branches[i].parameters(), *neck.closes[i].parameters()]
            for i in range(neck.num_branches)
        },
    }


def test_what_each_term_trains(wide_classifier):
    distiller, inputs, samples = build(wide_classifier, num_branches=3)
    losses, parts = distiller.loss(inputs, samples), groups(distiller)
    assert reached(losses['loss'], parts) == {'body', 'head'}
    assert reached(losses['era.loss_kd'], parts) == {'body', 'head'}
    assert reached(losses['era.loss_feat'], parts) == {'body', 'P'}
    for i in (1, 2, 3):  # r_i is a constant: neither P nor an earlier branch learns from it
        assert reached(losses[f'era.loss_res_{i}'], parts) == {'body', f'branch {i}'}
    for i in (0, 1, 2, 3):
        branches = {f'branch {j}' for j in range(1, i + 1)}
        assert reached(losses[f'era.loss_twi_{i}'], parts) == {'body', 'P', *branches}


def test_what_each_term_trains_beside_a_detached_student(wide_classifier):
    distiller, inputs, samples = build(wide_classifier, num_branches=3, detach_student=True)
    losses, parts = distiller.loss(inputs, samples), groups(distiller)
    assert reached(losses['era.loss_kd'], parts) == {'body', 'head'}
    assert reached(losses['era.loss_feat'], parts) == {'body', 'P'}
    assert reached(losses['era.loss_twi_0'], parts) == {'body', 'P'}
    for i in (1, 2, 3):
        assert reached(losses[f'era.loss_res_{i}'], parts) == {f'branch {i}'}
        assert reached(losses[f'era.loss_twi_{i}'], parts) == {f'branch {j}' for j in range(1, i + 1)}


def test_detaching_changes_no_value(wide_classifier):
    values = []
    for detach in (False, True):
        distiller, inputs, samples = build(wide_classifier, detach_student=detach)
        values.append({name: value.item() for name, value in distiller.loss(inputs, samples).items()})
    assert values[0] == values[1]


def test_the_teacher_stays_as_it_is(wide_classifier):
    distiller, inputs, samples = build(wide_classifier, double=False)
    model, before = distiller.teacher.model, distiller.teacher.fingerprint()
    weights = distiller.student.backbone.conv1.weight.detach().clone()
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    seen = {id(p) for group in optimizer.param_groups for p in group['params']}
    assert not seen & {id(p) for p in model.parameters()}
    for _ in range(3):
        distiller.train()
        assert not any(module.training for module in model.modules())
        optimizer.zero_grad()
        sum(distiller.loss(inputs, samples).values()).backward()
        optimizer.step()
    assert distiller.student.training and not torch.equal(weights, distiller.student.backbone.conv1.weight)
    assert distiller.teacher.fingerprint() == before
    assert not any(p.requires_grad for p in model.parameters())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize('twi_on', list(JUDGED))
@pytest.mark.parametrize('detach_student', [False, True])
def test_every_trainable_parameter_gets_a_gradient(equal_classifier, twi_on, detach_student):
    """One that gets none would make distributed training wait for ever."""
    for w_feat, w_res, w_twi in product((0.0, 1.0), (0.0, 1.0), (0.0, 1.0)):
        weights = dict(w_feat=w_feat, w_res=w_res, w_twi=w_twi, w_kd=0.0, num_branches=2)
        distiller, inputs, samples = build(
            equal_classifier, double=False, twi_on=twi_on, detach_student=detach_student, **weights
        )
        sum(value for name, value in distiller.loss(inputs, samples).items()).backward()
        without = [n for n, p in distiller.named_parameters() if p.requires_grad and p.grad is None]
        assert without == [], weights
        # ... and what a term can reach is not frozen.
        neck, judges = distiller.methods[0].neck, bool(w_twi) and twi_on != 'none'
        assert neck.branches[0][0].layer.weight.requires_grad == bool(w_res or judges), weights
        first = judges and (twi_on in ('all', 'ends') or not detach_student)
        assert neck.projection.weight.requires_grad == bool(w_feat or first), weights


@pytest.mark.parametrize('wiring', ['accumulate', 'cascade', 'mix'])
@pytest.mark.parametrize('num_branches', [1, 2])
def test_every_trainable_parameter_of_other_wirings_gets_a_gradient(wide_classifier, wiring, num_branches):
    case = dict(wiring=wiring, num_branches=num_branches, neck=dict(shared_blocks=1, shared_close=True, act='prelu'))
    distiller, inputs, samples = build(wide_classifier, double=False, **case)
    sum(distiller.loss(inputs, samples).values()).backward()
    assert [n for n, p in distiller.named_parameters() if p.requires_grad and p.grad is None] == []


def test_without_a_weight_it_does_nothing(wide_classifier):
    distiller, inputs, samples = build(wide_classifier, w_kd=0.0, w_feat=0.0, w_res=0.0, w_twi=0.0, w_task=0.5)
    assert not distiller.methods[0].active
    distiller.teacher.extract = None  # to call it would be an error
    plain = distiller.student(inputs, samples, mode='loss')
    found = distiller.loss(inputs, samples)
    assert set(found) == {'loss'} and found['loss'].item() == plain['loss'].item()


@pytest.mark.parametrize('variant, share', [('integrated', 1.0), ('blend', 0.3)])
def test_variants(wide_classifier, variant, share):
    distiller, inputs, samples = build(wide_classifier, alpha=0.3, num_branches=3)
    distiller.eval()
    reference = Reference(distiller, inputs, samples, wide_classifier, training=False)
    last = partial_sums(*reference.steps(3))[-1][0]
    logits = (1 - share) * reference.z_s + share * affine(last, reference.teacher_head, 'fc')
    expected = torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True)
    distiller.set_variant(variant)
    found = torch.stack([sample.pred_score for sample in distiller.predict(inputs, samples)])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert not found.requires_grad
    plain = torch.softmax(reference.z_s, 1)
    assert (found - plain).abs().max() > 0.01  # the student alone says something else


def test_integrated_does_not_run_the_body_of_the_teacher(wide_classifier):
    distiller, inputs, samples = build(wide_classifier)
    distiller.eval().set_variant('integrated')
    expected = torch.stack([s.pred_score for s in distiller.predict(inputs, samples)])
    distiller.teacher.model.backbone = None
    assert torch.equal(torch.stack([s.pred_score for s in distiller.predict(inputs, samples)]), expected)


def test_terms_on_logits_need_the_same_classes(tmp_path):
    teacher = save_random_teacher(tiny_classifier(16, num_classes=7), tmp_path)
    for case in (dict(w_kd=0.0), dict(twi_on='none'), {}):
        with pytest.raises(ValueError, match='the student has 4 classes, the teacher 7'):
            build(teacher, **case)
    distiller, inputs, samples = build(teacher, twi_on='none', w_kd=0.0, double=False)
    on_features = {'era.loss_feat', *(f'era.loss_res_{i}' for i in (1, 2, 3, 4))}
    assert set(distiller.loss(inputs, samples)) == {'loss', *on_features}


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(num_branches=3, branch_weights=[1.0, 0.5]), r'expected 3 numbers > 0, found \[1.0, 0.5\]'),
        (dict(num_branches=2, branch_weights=[1.0, 0.0]), r'expected 2 numbers > 0, found \[1.0, 0.0\]'),
        (dict(num_branches=2, branch_weights=[1.0, -1.0]), r'expected 2 numbers > 0'),
        (dict(twi_on='first'), "twi_on must be 'all', 'ends', 'last' or 'none', found 'first'"),
        (dict(alpha=0.0), r'alpha must be in \(0, 1\), found 0.0'),
        (dict(alpha=1.0), r'alpha must be in \(0, 1\), found 1.0'),
    ],
)
def test_arguments_out_of_range(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ERA(**kwargs)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(num_branches=0), 'num_branches must be at least 1, found 0'),
        (dict(tau=0), 'tau must be > 0, found 0'),
        (dict(neck=dict(wiring='mix')), r"\['wiring'\] are arguments of ERA itself"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        ERA(**arguments)


@pytest.mark.parametrize('era', [{}, dict(standardize=True), dict(twi_on='last', wiring='mix')])
def test_a_last_batch_of_one_image_is_trained_on(era, wide_classifier):
    from mmengine.optim import OptimWrapper

    distiller = build_distiller(tiny_classifier(), wide_classifier, [dict(type='mmrkd.ERA', **era)]).train()
    optimizer = OptimWrapper(torch.optim.SGD(distiller.parameters(), lr=0.01))
    distiller.train_step(classification_batch(4), optimizer)
    before = {name: p.detach().clone() for name, p in distiller.named_parameters() if p.requires_grad}
    logs = distiller.train_step(classification_batch(1, seed=1), optimizer)
    assert all(torch.as_tensor(value).isfinite().all() for value in logs.values())
    assert all(value.isfinite().all() for value in distiller.state_dict().values())
    moved = [name for name, p in distiller.named_parameters() if name in before and not torch.equal(p, before[name])]
    for part in ('backbone', 'branches.0.0.layer', 'branches.3.0.layer', 'branches.3.1.norms'):
        assert any(part in name for name in moved), part
