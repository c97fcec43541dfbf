import pytest
import torch
from reference import opinionated_teacher, reached, second_teacher, standardized, stir
from torch.nn.functional import cross_entropy, mse_loss

from mmrkd.models import Progress
from mmrkd.models.losses import median_distance, squared_mmd
from mmrkd.models.methods import TRED
from mmrkd.models.necks import Disentangler
from mmrkd.testing import (
    build_distiller,
    build_model,
    classification_batch,
    detection_batch,
    model_inputs,
    tiny_classifier,
    tiny_retinanet,
)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A model of seven other classes, as wide as the student."""
    return opinionated_teacher(tiny_classifier(8, num_classes=7), tmp_path_factory.mktemp('source'), seed=21)


def build(teacher, student=None, batch=None, init_student='', **tred):
    student = student or tiny_classifier(8)
    methods = [dict(type='mmrkd.TRED', **tred)]
    distiller = build_distiller(student, teacher, methods, seed=3, init_student=init_student).double().train()
    stir(distiller.methods[0].disentangler)
    inputs, samples = model_inputs(distiller, batch or classification_batch())
    return distiller, inputs.double(), samples


def reference(teacher, method, inputs, samples, standardize=True):
    f = second_teacher(teacher).backbone(inputs)[-1]
    f_s = build_model(tiny_classifier(8), seed=3).double().train().backbone(inputs)[-1]
    net = method.disentangler
    if method.parts == 'gate':
        g = torch.sigmoid(net.relevant[2](net.relevant[0](f).relu()))
        plus, minus = g * f, f - g * f
    else:
        plus, minus = (part[2](part[0](f).relu()) for part in (net.relevant, net.rest))
    labels = torch.tensor([sample.gt_label.item() for sample in samples])
    pooled = [x.mean((2, 3)) for x in (f, plus, minus)]
    widths = median_distance(pooled[0]) * torch.tensor([0.5, 1.0, 2.0])
    own = method.projection([f_s])[0]
    compared = [standardized(x, plus) for x in (own, plus)] if standardize else (own, plus)
    return dict(
        relevant=cross_entropy(method.classifier(pooled[1]), labels),
        apart=-method.w_mmd * squared_mmd(pooled[1], pooled[2], widths),
        rec=method.w_rec * mse_loss(plus + minus, f),
        reg=method.w_reg * mse_loss(compared[0], compared[1]),
    )


@pytest.mark.parametrize('tred', [{}, dict(parts='two', standardize=False, w_reg=0.3, w_rec=2.0, w_mmd=0.5)], ids=str)
def test_terms_of_a_source_of_other_classes(source, tred):
    distiller, inputs, samples = build(source, **tred)
    method = distiller.methods[0]
    assert not list(method.projection.parameters()), 'equal widths need none'
    expected = reference(source, method, inputs, samples, tred.get('standardize', True))
    if method.parts == 'gate':
        del expected['rec']
    before = distiller.teacher.fingerprint()
    found = distiller.loss(inputs, samples)
    assert set(found) == {'loss', 'tred.relevant_accuracy', *(f'tred.loss_{name}' for name in expected)}
    for name, value in expected.items():
        assert found[f'tred.loss_{name}'].item() == pytest.approx(value.item(), rel=1e-4), name
    distiller.parse_losses(found)[0].backward()
    assert all(p.grad is not None for p in distiller.parameters())
    assert distiller.teacher.fingerprint() == before


def test_who_learns_from_what(wide_classifier):
    distiller, inputs, samples = build(wide_classifier)
    method = distiller.methods[0]
    modules = dict(student=distiller.student, d=method.disentangler, c=method.classifier, p=method.projection)
    parts = {name: list(module.parameters()) for name, module in modules.items()}
    found = distiller.loss(inputs, samples)
    assert reached(found['tred.loss_relevant'], parts) == {'d', 'c'}
    assert reached(found['tred.loss_apart'], parts) == {'d'}
    assert reached(found['tred.loss_reg'], parts) == {'student', 'p'}


def test_where_all_is_relevant_it_is_fitnets_on_maps(wide_classifier):
    distiller, inputs, samples = build(wide_classifier)
    method = distiller.methods[0]
    method.disentangler.forward = lambda feat: (feat, torch.zeros_like(feat))
    found = distiller.loss(inputs, samples)['tred.loss_reg']
    f = second_teacher(wide_classifier).backbone(inputs)[-1]
    f_s = build_model(tiny_classifier(8), seed=3).double().train().backbone(inputs)[-1]
    layer = method.projection.layers[0]
    lifted = torch.einsum('nchw,oc->nohw', f_s, layer.weight[..., 0, 0]) + layer.bias[:, None, None]
    expected = mse_loss(standardized(lifted, f), standardized(f, f))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_student_starts_from_the_source(source):
    distiller, inputs, samples = build(source, init_student='backbone')
    own = second_teacher(source).state_dict()
    state = distiller.student.backbone.state_dict()
    assert all(torch.equal(value, own[f'backbone.{name}']) for name, value in state.items())
    assert distiller.student.head.fc.weight.shape[0] == 4


def test_the_regulariser_rises_and_what_it_needs_learns_from_the_start(source):
    distiller, inputs, samples = build(source, begin=2.0)
    whole = distiller.loss(inputs, samples)
    for epochs, factor in ((0.0, 0.0), (2.0, 0.0), (3.0, 0.5), (5.0, 1.0)):
        distiller.methods[0].progress = Progress(epochs, epochs / 10)
        found = distiller.loss(inputs, samples)
        assert found['tred.loss_reg'].item() == pytest.approx(factor * whole['tred.loss_reg'].item(), rel=1e-6)
        assert found['tred.loss_relevant'].item() == pytest.approx(whole['tred.loss_relevant'].item())
    assert TRED(begin=0.0).begin == 0 and not TRED(w_reg=0.0).active


def test_soft_labels_are_read(source):
    distiller, inputs, samples = build(source)
    hard = distiller.loss(inputs, samples)['tred.loss_relevant']
    scores = torch.rand(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(1)
    for sample, score in zip(samples, scores):
        sample.set_gt_score(score)
    method = distiller.methods[0]
    plus = method.disentangler(second_teacher(source).backbone(inputs)[-1])[0].mean((2, 3))
    expected = -(scores * method.classifier(plus).log_softmax(1)).sum(1).mean()
    found = distiller.loss(inputs, samples)['tred.loss_relevant']
    assert found.item() == pytest.approx(expected.item(), rel=1e-5) and abs(found - hard) > 1e-4


def test_the_gate_opens_wider_where_the_label_is():
    """Half of the channels carry the label, the others noise that is another one each time."""
    torch.manual_seed(0)
    labels = torch.arange(64) % 4
    informative = torch.nn.functional.one_hot(labels, 4).float()
    net, classifier = Disentangler(8), torch.nn.Linear(8, 4)
    assert net.gate(torch.zeros(1, 8, 1, 1)).mean().item() == pytest.approx(0.88, abs=0.02)
    optimizer = torch.optim.Adam([*net.parameters(), *classifier.parameters()], 0.02)
    for _ in range(150):
        feats = torch.cat([informative, torch.rand(64, 4)], 1)[:, :, None, None]
        plus, minus = (part.mean((2, 3)) for part in net(feats))
        loss = cross_entropy(classifier(plus), labels) - 0.1 * squared_mmd(plus, minus, (0.5, 1.0, 2.0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    logits = net.relevant(feats).mean((0, 2, 3))
    assert logits[:4].mean() > logits[4:].mean() + 0.5


def test_what_does_not_fit_is_refused(source, wide_retinanet, tmp_path):
    with pytest.raises(ValueError, match='TRED transfers classifiers'):
        build(wide_retinanet, tiny_retinanet(), detection_batch())
    finer = tiny_classifier(8, num_classes=7)
    finer['backbone'].update(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,))
    finer['head']['in_channels'] = 32
    with pytest.raises(ValueError, match="student's is 8 pixels wide, one of the source model's 4"):
        build(opinionated_teacher(finer, tmp_path, seed=22))
    for tred, message in (
        (dict(w_reg=-1.0), 'w_reg=-1.0'),
        (dict(parts='three'), "'three'"),
        (dict(begin=-1.0), 'begin'),
    ):
        with pytest.raises(ValueError, match=message):
            TRED(**tred)
