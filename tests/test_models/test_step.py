"""What a method sees beside features and outputs, because it says that it reads it."""

import torch

from mmrkd.models.methods import FitNets
from mmrkd.testing import build_distiller, detection_batch, model_inputs, tiny_retinanet


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
