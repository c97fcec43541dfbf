"""What a method sees beside features and outputs, because it says that it reads it."""

import pytest
import torch

from mmrkd.models import DistillMethod
from mmrkd.models.methods import FitNets
from mmrkd.testing import (
    build_distiller,
    build_model,
    classification_batch,
    detection_batch,
    model_inputs,
    tiny_classifier,
    tiny_retinanet,
)


def seen(teacher, **declared):
    """The student's view that a method with these declarations gets, and the distiller."""
    distiller = build_distiller(tiny_retinanet(), teacher, [dict(type='mmrkd.FitNets')]).train()
    method, views = distiller.methods[0], []
    for name, value in declared.items():
        setattr(method, name, value)
    method.losses = lambda student, *args: views.append(student) or FitNets.losses(method, student, *args)
    distiller.loss(*model_inputs(distiller, detection_batch()))
    return views[0], distiller


def test_assigned_targets_are_seen_by_who_reads_them(wide_retinanet):
    view, distiller = seen(wide_retinanet, reads_targets=True)
    rows = [len(level) for level in distiller.adapter.logits(view.outputs)]
    assert [len(level) for level in view.assigned.labels] == rows
    assert view.assigned.num_pos == sum(int((level < 4).sum()) for level in view.assigned.labels) > 1
    assert seen(wide_retinanet)[0].assigned is None


def test_priors_stand_beside_the_predictions_of_an_image(wide_retinanet):
    view, distiller = seen(wide_retinanet)
    priors = distiller.adapter.priors(view.outputs)
    assert [2 * len(level) for level in priors] == [len(level) for level in distiller.adapter.logits(view.outputs)]
    assert torch.equal(priors[1][:3], distiller.student.bbox_head.prior_generator.base_anchors[1])
    assert distiller.adapter.assigns


def test_every_call_is_seen_before_an_activation_in_place(wide_retinanet):
    name = 'bbox_head.cls_convs.0.conv'
    view, distiller = seen(wide_retinanet, student_calls=(name,))
    conv = distiller.student.bbox_head.cls_convs[0]
    assert set(view.calls) == {name} and len(view.calls[name]) == 3
    for feat, found in zip(view.feats, view.calls[name]):
        torch.testing.assert_close(found, conv.conv(feat))
        assert found.min() < 0 and found.requires_grad
    assert conv.activate.inplace and seen(wide_retinanet)[0].calls == {}


class Mirrored(DistillMethod):
    """Reads a view that it makes itself, and keeps what it saw."""

    made_views = ('mirrored',)

    def __init__(self, joint):
        super().__init__()
        self.joint, self.seen = joint, None

    def make_views(self, inputs):
        return dict(mirrored=inputs.flip(3))

    def losses(self, student, teacher, samples):
        self.seen = student, student.views['mirrored'], teacher.views['mirrored']
        assert list(student.views) == ['weak', 'mirrored']
        return {'loss_far': (student.feats[0] - student.views['mirrored'].feats[0]).square().mean()}


class TestMadeViews:
    def run(self, teacher, joint, *others):
        methods = [Mirrored(joint), *others]
        distiller = build_distiller(tiny_classifier(), teacher, methods, seed=3).double().train()
        inputs, samples = model_inputs(distiller, classification_batch())
        inputs = inputs.double()
        losses = distiller.loss(inputs, samples)
        return distiller, inputs, samples, losses, distiller.methods[0].seen

    @pytest.mark.parametrize('joint', [False, True])
    def test_a_view_is_seen_apart_or_in_one_batch_with_the_plain_one(self, wide_classifier, joint):
        distiller, inputs, samples, losses, seen = self.run(wide_classifier, joint)
        plain = build_model(tiny_classifier(), seed=3).double().train()
        images = [inputs, inputs.flip(3)]
        feats = (
            plain.extract_feat(torch.cat(images))[0].chunk(2) if joint else [plain.extract_feat(i)[0] for i in images]
        )
        for view, expected in zip(seen, feats):
            torch.testing.assert_close(view.feats[0], expected)
            torch.testing.assert_close(view.outputs, plain.head((expected,)))
        torch.testing.assert_close(losses['loss'], plain.head.loss((feats[0],), samples)['loss'])
        torch.testing.assert_close(seen[2].feats[0], distiller.teacher.extract(images[1])[0])
        assert distiller.methods[0].num_views == 2

    def test_what_others_tap_is_the_plain_batch(self, wide_classifier):
        """A joint pass is nobody else's business: attention is that of a run whose BatchNorm sees both batches."""
        at = dict(type='mmrkd.AttentionTransfer')
        distiller, inputs, _, losses, _ = self.run(wide_classifier, True, at)
        plain = build_model(tiny_classifier(), seed=3).double().train()
        own = plain.backbone(torch.cat([inputs, inputs.flip(3)]))[-1][:4]
        other = distiller.teacher.model.backbone(inputs)[-1]
        attentions = [f.square().mean(1).flatten(1) for f in (own, other)]
        first, second = (a / a.norm(dim=1, keepdim=True) for a in attentions)
        assert losses['attentiontransfer.loss_at'].item() == pytest.approx(
            500 * (first - second).square().mean().item(), rel=1e-5
        )

    def test_views_of_two_sizes_are_not_seen_at_once(self, wide_classifier):
        method = Mirrored(joint=True)
        method.make_views = lambda inputs: dict(mirrored=inputs[..., :16, :16])
        distiller = build_distiller(tiny_classifier(), wide_classifier, [method]).train()
        with pytest.raises(ValueError, match=r'\(joint\) need one size'):
            distiller.loss(*model_inputs(distiller, classification_batch()))
