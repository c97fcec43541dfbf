import pytest
import torch
from reference import bernoulli_kl, softmax_kl

from mmrkd.adapters import build_adapter
from mmrkd.models import OutputMimicry
from mmrkd.testing import build_distiller, build_model, save_random_teacher, tiny_classifier, tiny_gfl, tiny_retinanet


def outputs_of(seed, box_channels=4, anchors=3, shape=(2, 3, 2)):
    """Dense outputs of 4 classes on two levels, confident enough to tell formulas apart."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [shape[1:], (1, 1)]
    cls = [torch.randn(shape[0], anchors * 4, *s, generator=generator, dtype=torch.double) for s in sizes]
    box = [torch.randn(shape[0], anchors * box_channels, *s, generator=generator, dtype=torch.double) for s in sizes]
    return [x.requires_grad_() for x in cls], [x.requires_grad_() for x in box]


def flat(levels, width):
    return torch.cat([x.permute(0, 2, 3, 1).reshape(-1, width) for x in levels])


@pytest.fixture(scope='module')
def retinanet():
    return build_adapter(build_model(tiny_retinanet()))


@pytest.mark.parametrize('tau', [None, 2.0])
def test_dense_logits_and_boxes(retinanet, tau):
    learner, target = outputs_of(1), outputs_of(2)
    found = OutputMimicry(retinanet, tau=tau, w_box=0.5)('loss', 3.0, learner, target)
    logits, wanted = flat(learner[0], 4), flat(target[0], 4)
    confidence = wanted.sigmoid().amax(1)
    l1 = ((flat(learner[1], 4) - flat(target[1], 4)).abs().sum(1) / 4 * confidence).sum() / confidence.sum()
    assert set(found) == {'loss', 'loss_box'} and confidence.sum() > 1
    assert found['loss'].item() == pytest.approx(3 * bernoulli_kl(wanted, logits, tau or 1.0).item(), rel=1e-6)
    assert found['loss_box'].item() == pytest.approx(3 * 0.5 * l1.item(), rel=1e-6)
    sum(found.values()).backward()
    assert all(x.grad.abs().sum() > 0 for part in learner for x in part)
    assert all(x.grad is None for part in target for x in part)


def test_distributions_of_boxes():
    adapter = build_adapter(build_model(tiny_gfl()))
    assert adapter.box_bins == 4
    learner, target = outputs_of(1, 16, anchors=1), outputs_of(2, 16, anchors=1)
    found = OutputMimicry(adapter, tau_box=5.0)('loss', 1.0, learner, target)['loss_box']
    confidence = flat(target[0], 4).sigmoid().amax(1)
    expected = 0
    for c, a, b in zip(confidence, flat(learner[1], 16), flat(target[1], 16)):
        expected = expected + c * softmax_kl(b.reshape(4, 4), a.reshape(4, 4), 5.0)  # mean over the four sides
    assert found.item() == pytest.approx((expected / confidence.sum()).item(), rel=1e-6)


def test_confidence_of_a_softmax_head_leaves_the_background_out():
    head = dict(tiny_retinanet()['bbox_head'], loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False))
    adapter = build_adapter(build_model(dict(tiny_retinanet(), bbox_head=head)))
    logits = torch.tensor([[0.0, 1.0, 2.0, 0.0, 9.0]])
    expected = logits.exp()[0, 2] / logits.exp().sum()
    assert OutputMimicry(adapter)._confidence(logits).item() == pytest.approx(expected.item())


def test_classifier_has_the_papers_temperature_and_no_boxes():
    adapter = build_adapter(build_model(tiny_classifier()))
    learner, target = torch.randn(3, 4, dtype=torch.double), torch.randn(3, 4, dtype=torch.double)
    found = OutputMimicry(adapter)('loss', 2.0, learner, target)
    assert set(found) == {'loss'}
    assert found['loss'].item() == pytest.approx(2 * softmax_kl(target, learner, 4.0).item(), rel=1e-6)


def test_at_equality_it_is_zero_and_without_a_weight_it_is_nothing(retinanet):
    outputs = outputs_of(1)
    found = OutputMimicry(retinanet)('loss', 1.0, outputs, outputs)
    assert [value.item() for value in found.values()] == pytest.approx([0, 0], abs=1e-12)
    assert OutputMimicry(retinanet)('loss', 0.0, None, None) == {}
    assert set(OutputMimicry(retinanet, w_box=0.0)('loss', 1.0, outputs, outputs)) == {'loss'}


@pytest.mark.parametrize('taus', [dict(tau=0.0), dict(tau_box=-1.0)], ids=str)
def test_temperatures_are_positive(retinanet, taus):
    with pytest.raises(ValueError, match='tau and tau_box must be > 0'):
        OutputMimicry(retinanet, **taus)


def softmax_head():
    return dict(tiny_retinanet()['bbox_head'], loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False))


def test_exclusive_classes_with_a_background_are_counted_by_objects():
    """A mean over all priors would switch KD off: 20 objects among 5,000 priors."""
    adapter = build_adapter(build_model(dict(tiny_retinanet(), bbox_head=softmax_head())))
    assert adapter.background and not adapter.sigmoid
    cell = torch.tensor([0.0, 0.0, 0.0, 0.0, 9.0])
    missed, seen = (cell.repeat(15, 1).reshape(1, 75, 1, 1).repeat(1, 1, 20, 20) for _ in range(2))
    seen[0, 0, :4, :5], seen[0, 4, :4, :5] = 9.0, 0.0
    outputs, targets = (([scores], [torch.zeros(1, 60, 20, 20)]) for scores in (missed, seen))
    loss = OutputMimicry(adapter, w_box=0)('loss', 1.0, outputs, targets)['loss']
    p = cell.softmax(0)
    one = (p[4] * 9 - p[0] * 9).item()  # KL of the swapped distributions
    confidence = (20 * p[4] + (6000 - 20) * p[0]).item()
    assert loss.item() == pytest.approx(20 * one / confidence, rel=1e-4) and loss > 5
    assert OutputMimicry(adapter)('loss', 1.0, targets, targets)['loss'].item() == pytest.approx(0, abs=1e-6)


class TestBuilding:
    def test_points_are_refused_by_name(self):
        """RepPoints was refused in the first iteration."""
        adapter = build_adapter(build_model(reppoints()))
        with pytest.raises(ValueError, match='RepPointsHead cannot be compared: it regresses points.*Set w_box=0'):
            OutputMimicry(adapter)
        OutputMimicry(adapter, w_box=0.0)

    def test_rotated_boxes_are_refused_by_name(self):
        adapter = build_adapter(build_model(tiny_retinanet()))
        adapter.head.bbox_coder.encode_size = 5  # as those of mmrotate say
        with pytest.raises(ValueError, match='RetinaHead cannot be compared: it regresses 5 values'):
            OutputMimicry(adapter)

    def test_a_coder_that_nobody_declared_is_refused_by_name(self):
        adapter = build_adapter(build_model(tiny_retinanet()))
        adapter.head.bbox_coder = torch.nn.Identity()
        with pytest.raises(ValueError, match='boxes of a Identity mean is not declared'):
            OutputMimicry(adapter)

    @pytest.mark.parametrize('method', ['KD', 'DeepMutualLearning', 'SemiOnlineKD'])
    def test_methods_are_refused_when_they_are_built(self, method, tmp_path):
        teacher = save_random_teacher(reppoints(), tmp_path)
        with pytest.raises(ValueError, match='regresses points'):
            build_distiller(reppoints(), teacher, [dict(type=f'mmrkd.{method}', w_box=1.0)])

    def test_strides_are_not_compared_with_pixels(self, tmp_path):
        teacher = save_random_teacher(fcos(norm_on_bbox=False), tmp_path)
        with pytest.raises(ValueError, match='boxes: student distances in strides, teacher distances in pixels'):
            build_distiller(fcos(norm_on_bbox=True), teacher, [dict(type='mmrkd.KD', w_box=1.0)])
        build_distiller(fcos(norm_on_bbox=False), teacher, [dict(type='mmrkd.KD', w_box=1.0)])

    def test_a_head_that_nobody_declared_is_refused_by_name(self, tmp_path, monkeypatch):
        monkeypatch.setattr(type(build_adapter(build_model(tiny_retinanet()))), 'readings', {})
        teacher = save_random_teacher(tiny_retinanet(), tmp_path)
        with pytest.raises(ValueError, match='RetinaHead, whose outputs are not declared in .*readings'):
            build_distiller(tiny_retinanet(), teacher, [dict(type='mmrkd.KD')])


def test_a_head_of_somebody_else_is_declared_in_a_subclass():
    from mmdet.models import RetinaHead

    from mmrkd.adapters.box_forms import distances
    from mmrkd.adapters.dense_heads import READINGS, HeadReading
    from mmrkd.adapters.detection import DetectionAdapter

    class MyHead(RetinaHead):
        """Gives probabilities, and sides in strides."""

    class MyAdapter(DetectionAdapter):
        reading_of_mine = HeadReading(lambda head: distances(head, 'strides'), probabilities=True)
        readings = {**READINGS, f'{MyHead.__module__}.{MyHead.__qualname__}': reading_of_mine}

    model = build_model(tiny_retinanet())
    model.bbox_head.__class__ = MyHead
    adapter = MyAdapter(model)
    layout = adapter.dry_run()[1]
    assert (layout['scores'], layout['boxes']) == ('probabilities', 'distances in strides')
    (scores, boxes), other = outputs_of(1), outputs_of(2)
    outputs = [level.detach().sigmoid() for level in scores], [level.detach().abs() + 1 for level in boxes]
    expected = bernoulli_kl(flat(other[0], 4), flat(scores, 4), 1.0).item()
    target = [level.detach().sigmoid() for level in other[0]], outputs[1]
    found = OutputMimicry(adapter)('loss', 1.0, outputs, target)
    assert found['loss'].item() == pytest.approx(expected, rel=1e-3) and found['loss_box'].item() == 0


def fcos(**head):
    cfg = tiny_retinanet()
    own = dict(type='FCOSHead', num_classes=4, in_channels=16, feat_channels=16, stacked_convs=1, norm_cfg=None)
    ranges = ((-1, 64), (64, 128), (128, 1e8))
    cfg.update(type='FCOS', bbox_head=dict(own, strides=[8, 16, 32], regress_ranges=ranges, **head))
    return cfg


def reppoints():
    cfg = tiny_retinanet()
    own = dict(type='RepPointsHead', num_classes=4, in_channels=16, feat_channels=16, point_feat_channels=16)
    cfg.update(type='RepPointsDetector')
    cfg['bbox_head'] = dict(own, stacked_convs=1, point_strides=[8, 16, 32], transform_method='minmax')
    cfg['train_cfg'] = dict(
        init=dict(assigner=dict(type='PointAssigner', scale=4, pos_num=1), allowed_border=-1, pos_weight=-1),
        refine=dict(assigner=cfg['train_cfg']['assigner'], allowed_border=-1, pos_weight=-1),
    )
    return cfg
