"""A teacher that pads more than its student: what is compared is what both see, the upper left corner."""

import pytest
import torch
import torch.nn.functional as F
from reference import second_teacher

from mmrkd.testing import build_distiller, detection_batch, model_inputs, paired, tiny_retinanet


def build(student, teacher, method):
    """Images of 96 pixels, 128 for the teacher; nothing is drawn and no statistic moves."""
    distiller = build_distiller(student, teacher, [method], seed=1).double().eval()
    inputs, samples = model_inputs(distiller, detection_batch(size=96))
    inputs = inputs.double()
    with torch.no_grad():
        wide = second_teacher(teacher).backbone(F.pad(inputs, (0, 32, 0, 32)))
    assert inputs.shape[-1] == 96 and [f.shape[-1] for f in wide] == [32, 16, 8, 4]
    return distiller, inputs, samples, wide


def corner(feat, like, row=0, column=0):
    height, width = like.shape[-2:]
    return feat[..., row : row + height, column : column + width]


def other_corners(feat, like):
    """The crops from the other sides, which a mistake would take."""
    down, right = (f - o for f, o in zip(feat.shape[-2:], like.shape[-2:]))
    return [corner(feat, like, *start) for start in ((down, 0), (0, right), (down, right))]


def attention(feat):
    q = feat.square().sum(1).flatten(1)
    return q / q.norm(dim=1, keepdim=True)


def distance(own, other):
    return (attention(own) - attention(other)).square().mean().item()


def test_attention_transfer(padding_retinanet):
    method = dict(type='mmrkd.AttentionTransfer', w_at=1000.0)
    distiller, inputs, samples, wide = build(tiny_retinanet(), padding_retinanet, method)
    with torch.no_grad():
        own = distiller.student.backbone(inputs)
    found = distiller.loss(inputs, samples)['attentiontransfer.loss_at'].item()
    expected = 1000 * sum(distance(o, corner(w, o)) for o, w in zip(own, wide))
    assert found == pytest.approx(expected, rel=1e-5)
    for wrong in zip(*(other_corners(w, o) for o, w in zip(own, wide))):
        assert 1000 * sum(map(distance, own, wrong)) != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize('stage', [1, 2, 3])
def test_residual_kd(padding_retinanet, stage):
    method = dict(type='mmrkd.ResidualKD', stages=[stage], distance='attention')
    distiller, inputs, samples, wide = build(paired(tiny_retinanet(16), 6, 3), padding_retinanet, method)
    found = distiller.loss(inputs, samples)
    backbone = distiller.student.backbone
    index, add = list(backbone.sums).index(str(stage)), backbone.sums[str(stage)]
    with torch.no_grad():
        own = add.student(backbone.student(inputs)[index])
        increment = add.assistant(backbone.assistant(inputs)[index])
    target = corner(wide[stage], own)
    assert found['residualkd.loss_student'].item() == pytest.approx(distance(own, target), rel=1e-5)
    assert found['residualkd.loss_assistant'].item() == pytest.approx(distance(increment, target - own), rel=1e-5)
    for wrong in other_corners(wide[stage], own):
        assert distance(own, wrong) != pytest.approx(distance(own, target), rel=1e-3)
