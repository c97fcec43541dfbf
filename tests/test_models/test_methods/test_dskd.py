import pytest
import torch
from reference import reached, second_teacher, standardized, stir
from torch import nn
from torch.nn.functional import mse_loss, softmax

from mmrkd.adapters import build_adapter
from mmrkd.adapters.stages import stage_ends
from mmrkd.models.losses import kl_divergence
from mmrkd.models.methods import DSKD
from mmrkd.testing import (
    build_distiller,
    build_model,
    classification_batch,
    detection_batch,
    model_inputs,
    paired,
    tiny_classifier,
    tiny_retinanet,
)

STAGES = ('backbone.layer1', 'backbone.layer2', 'backbone.layer3')


def build(teacher, student=None, batch=None, **dskd):
    student = student or tiny_classifier(8)
    distiller = build_distiller(student, teacher, [dict(type='mmrkd.DSKD', **dskd)], seed=3).double().train()
    inputs, samples = model_inputs(distiller, batch or classification_batch())
    return distiller, inputs.double(), samples


def reference(teacher, method, inputs, standardize):
    """KL and MSE of each exit."""
    plain, model = second_teacher(teacher), build_model(tiny_classifier(8), seed=3).double().train()
    target, z_t = plain.backbone(inputs)[-1], plain.head(plain.extract_feat(inputs))
    x = model.backbone.relu(model.backbone.bn1(model.backbone.conv1(inputs)))
    maps, logits = [], []
    for index in range(1, 5):
        x = model.backbone.get_submodule(f'layer{index}')(x)
        if index < 4:
            branch = method.branches[index - 1]
            maps.append(branch.map(branch.reduction(x)))
            logits.append(branch.fc(maps[-1].mean((2, 3))))
    maps.append(method.projection.layers[0](x))
    logits.append(model.head((x.mean((2, 3)),)))
    if standardize:
        target = standardized(target, target)
    return [kl_divergence(z, z_t, 4.0) for z in logits], [mse_loss(m, target) for m in maps]


@pytest.mark.parametrize('alloc', ['softmax', 'proportional', 'uniform'])
@pytest.mark.parametrize('standardize', [True, False])
def test_terms(wide_classifier, alloc, standardize):
    distiller, inputs, samples = build(wide_classifier, alloc=alloc, standardize=standardize, alpha=2.0, beta=0.5)
    method = distiller.methods[0]
    stir(method.branches)
    families = reference(wide_classifier, method, inputs, standardize)
    before, expected = distiller.teacher.fingerprint(), {}
    for name, weight, terms in zip(('kl', 'map'), (2.0, 0.5), families):
        values = torch.tensor([term.item() for term in terms])
        shares = dict(softmax=softmax(values, 0), proportional=values / values.sum(), uniform=torch.full((4,), 0.25))
        expected[f'dskd.loss_{name}'] = weight * float((shares[alloc] * values).sum())
        for exit_name, share in zip(('exit1', 'exit2', 'exit3', 'last'), shares[alloc]):
            expected[f'dskd.weight_{name}_{exit_name}'] = share.item()
    found = distiller.loss(inputs, samples)
    assert {name: value.item() for name, value in found.items() if name != 'loss'} == pytest.approx(expected, rel=1e-4)
    distiller.parse_losses(found)[0].backward()
    assert all(p.grad is not None for p in distiller.parameters())
    assert distiller.teacher.fingerprint() == before


def test_branches_lead_to_the_teachers_last_map(wide_classifier):
    method = build(wide_classifier)[0].methods[0]
    layers = [
        [(m.in_channels, m.out_channels) for m in b.reduction if isinstance(m, nn.Conv2d)] for b in method.branches
    ]
    assert layers == [[(8, 16), (16, 32), (32, 64)], [(16, 32), (32, 64)], [(32, 64)]]
    assert [tuple(b.map.weight.shape) for b in method.branches] == [(128, 64, 1, 1)] * 3
    assert method.branches[0].fc.weight.std().item() == pytest.approx(0.01, rel=0.2)


def test_equal_widths_need_no_projection(equal_classifier):
    distiller, *_ = build(equal_classifier)
    assert not list(distiller.methods[0].projection.parameters())


def test_the_allocation_is_a_constant_and_all_exits_learn(wide_classifier):
    distiller, inputs, samples = build(wide_classifier, w_exit_task=0.5)
    method = distiller.methods[0]
    found = distiller.loss(inputs, samples)
    parts = {f'exit{i}': list(branch.parameters()) for i, branch in enumerate(method.branches, 1)}
    parts.update(
        first=list(distiller.student.backbone.layer1.parameters()), head=list(distiller.student.head.parameters())
    )
    assert reached(found['dskd.loss_kl'], parts) == {'exit1', 'exit2', 'exit3', 'first', 'head'}
    assert reached(found['dskd.loss_map'], parts) == {'exit1', 'exit2', 'exit3', 'first'}
    assert reached(found['dskd.loss_exit_task'], parts) == {'exit1', 'exit2', 'exit3', 'first'}
    model = build_model(tiny_classifier(8), seed=3).double().train()
    x, total = model.backbone.relu(model.backbone.bn1(model.backbone.conv1(inputs))), 0.0
    labels = torch.tensor([sample.gt_label.item() for sample in samples])
    for index, branch in enumerate(method.branches, 1):
        x = model.backbone.get_submodule(f'layer{index}')(x)
        total += nn.functional.cross_entropy(branch(x)[1], labels).item()
    assert found['dskd.loss_exit_task'].item() == pytest.approx(0.5 * total, rel=1e-6)


def test_exits_predict(wide_classifier):
    distiller, inputs, samples = build(wide_classifier)
    distiller.eval()
    assert {'exit1', 'exit2', 'exit3'} < set(distiller.variants)
    distiller.set_variant('exit2')
    found = torch.stack([s.pred_score for s in distiller(inputs, samples, mode='predict')])
    backbone, branch = distiller.student.backbone, distiller.methods[0].branches[1]
    x = backbone.relu(backbone.bn1(backbone.conv1(inputs)))
    expected = branch(backbone.layer2(backbone.layer1(x)))[1].softmax(1)
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="'exit2' is a branch on 'backbone.layer2'"):
        distiller.variants['exit2'].build()


class TestStages:
    def test_of_small_and_large_images(self):
        assert stage_ends(build_adapter(build_model(tiny_classifier()))) == STAGES
        cfg = tiny_classifier()
        cfg['backbone']['type'] = 'ResNet'  # with a stem of stride 4, which is no stage
        assert stage_ends(build_adapter(build_model(cfg))) == STAGES
        wide = dict(cfg, backbone=dict(type='mmrkd.WideResNet', depth=10, widen_factor=1))
        assert stage_ends(build_adapter(build_model(wide))) == STAGES[:2]

    def test_a_backbone_without_any_is_told_to_name_them(self, wide_classifier):
        with pytest.raises(ValueError, match='has no stage before the last one'):
            build(wide_classifier, paired(tiny_classifier(8), 6, 3))
        assert build(wide_classifier, student_layers=['backbone.layer3'])[0].methods[0].layers == ('backbone.layer3',)


def test_what_does_not_fit_is_refused(wide_classifier, wide_retinanet):
    with pytest.raises(ValueError, match='DSKD compares classifiers'):
        build(wide_retinanet, tiny_retinanet(), detection_batch())
    with pytest.raises(ValueError, match=r"compares maps .* \['neck'\] of ImageClassifier give none"):
        build(wide_classifier, student_layers=['neck'])
    for dskd, message in (
        (dict(tau=0.0), 'tau=0.0'),
        (dict(beta=-1.0), 'beta=-1.0'),
        (dict(alloc='hard'), "alloc must be one of.*'hard'"),
    ):
        with pytest.raises(ValueError, match=message):
            DSKD(**dskd)
