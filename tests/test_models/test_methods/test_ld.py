import pytest
import torch
from reference import opinionated_teacher, reached, second_teacher, stir

from mmrkd.models.losses import box_kl, valuable_region
from mmrkd.models.methods import LD
from mmrkd.testing import build_distiller, detection_batch, model_inputs, tiny_gfl

BINS = 4


@pytest.fixture(scope='module')
def wide_gfl(tmp_path_factory):
    return opinionated_teacher(tiny_gfl(16, 24), tmp_path_factory.mktemp('wide_gfl'), seed=21)


def build(teacher, batch=None, student=None, **ld):
    distiller = build_distiller(student or tiny_gfl(), teacher, [dict(type='mmrkd.LD', **ld)]).double().train()
    inputs, samples = model_inputs(distiller, batch or detection_batch())
    return distiller, inputs.double(), samples


def assigned_labels(distiller, inputs, samples):
    """Labels of each image and level, from the head's own assigner called by itself."""
    head, student = distiller.student.bbox_head, distiller.student
    with torch.no_grad():
        outputs = head(student.extract_feat(inputs))
    sizes, metas = [level.shape[-2:] for level in outputs[0]], [sample.metainfo for sample in samples]
    anchors, flags = head.get_anchors(sizes, metas, device='cpu')
    instances = [sample.gt_instances for sample in samples]
    return outputs, head.get_targets(anchors, flags, instances, metas)[1]


def expected_losses(method, distiller, teacher, inputs, samples):
    """Image by image and level by level, with the formulas of the paper."""
    outputs, labels = assigned_labels(distiller, inputs, samples)
    model = second_teacher(teacher)
    with torch.no_grad():
        targets = model.bbox_head(model.extract_feat(inputs))
    main = vlr = 0
    sizes = [level.shape[-2:] for level in outputs[0]]
    classes = []
    priors = distiller.student.bbox_head.prior_generator.grid_priors(sizes, device='cpu')
    for image, sample in enumerate(samples):
        worth = valuable_region(torch.cat(priors), [len(p) for p in priors], sample.gt_instances.bboxes)
        worth = worth.split([len(p) for p in priors])
        for level in range(3):
            z_s, b_s, z_t, b_t = (o[level][image].flatten(1).T for o in (*outputs, *targets))
            for row, label in enumerate(labels[level][image].tolist()):
                d = box_kl(b_s[row : row + 1], b_t[row : row + 1], BINS, method.tau, method.bins)
                vlr += worth[level][row] * d / 4
                if label < 4:
                    main += (z_s if method.confidence == 'student' else z_t)[row].sigmoid().max() * d
                    p, q = ((z[row] / method.tau_kd).softmax(0) for z in (z_t, z_s))
                    classes.append((p * (p / q).log()).mean() * method.tau_kd**2)
    return dict(main=method.w_main * main, vlr=method.w_vlr * vlr, kd=method.w_kd * sum(classes) / len(classes))


@pytest.mark.parametrize('arguments', [{}, dict(bins='sum', confidence='teacher', tau=2.0, tau_kd=1.0)], ids=str)
def test_three_terms(wide_gfl, arguments):
    distiller, inputs, samples = build(wide_gfl, **arguments)
    stir(distiller.student.bbox_head)
    expected = expected_losses(distiller.methods[0], distiller, wide_gfl, inputs, samples)
    before, found = distiller.teacher.fingerprint(), distiller.loss(inputs, samples)
    for name, value in expected.items():
        assert found[f'ld.loss_{name}'].item() == pytest.approx(value.item(), rel=1e-4) and value > 1e-5, name
    parts = dict(boxes=distiller.student.bbox_head.gfl_reg, classes=distiller.student.bbox_head.gfl_cls)
    parts = {name: list(part.parameters()) for name, part in parts.items()}
    assert reached(found['ld.loss_main'], parts) == reached(found['ld.loss_vlr'], parts) == {'boxes'}
    assert reached(found['ld.loss_kd'], parts) == {'classes'}
    distiller.parse_losses(found)[0].backward()
    assert all(p.grad is None for p in distiller.teacher.model.parameters())
    assert distiller.teacher.fingerprint() == before and not list(distiller.methods.parameters())


def test_normalised_sums(wide_gfl):
    plain, inputs, samples = build(wide_gfl)
    normalised, *_ = build(wide_gfl, normalize=True)
    ratios = []
    for name in ('main', 'vlr'):
        one, other = (d.loss(inputs, samples)[f'ld.loss_{name}'].item() for d in (plain, normalised))
        ratios.append(one / other)
    outputs, labels = assigned_labels(plain, inputs, samples)
    positive = torch.cat([(level < 4).flatten() for level in labels])
    scores = torch.cat([s.permute(0, 2, 3, 1).reshape(-1, 4) for s in outputs[0]]).sigmoid().amax(1)
    assert ratios[0] == pytest.approx(max(1, scores[positive].sum().item()), rel=1e-4)
    assert ratios[1] > 1


def test_a_teacher_of_the_same_outputs_has_nothing_to_teach(wide_gfl):
    distiller, inputs, samples = build(wide_gfl, student=tiny_gfl(16, 24))
    distiller.student.load_state_dict(second_teacher(wide_gfl).state_dict())
    distiller.student.eval()  # BatchNorm as in the teacher
    found = distiller.loss(inputs, samples)
    assert all(found[f'ld.loss_{name}'].item() == pytest.approx(0, abs=1e-6) for name in ('main', 'vlr', 'kd'))


def test_images_without_objects(wide_gfl):
    batch = detection_batch()
    for sample in batch['data_samples']:
        sample.gt_instances = sample.gt_instances[:0]
    distiller, inputs, samples = build(wide_gfl, batch)
    found = distiller.loss(inputs, samples)
    assert all(found[f'ld.loss_{name}'] == 0 for name in ('main', 'vlr', 'kd'))
    distiller.parse_losses(found)[0].backward()


def test_terms_without_a_weight_are_left_out(wide_gfl):
    distiller, inputs, samples = build(wide_gfl, w_vlr=0.0, w_kd=0.0)
    assert [name for name in distiller.loss(inputs, samples) if name.startswith('ld')] == ['ld.loss_main']
    distiller, inputs, samples = build(wide_gfl, w_main=0.0, w_vlr=0.0, w_kd=0.0)
    distiller.teacher.extract = None  # to call it would be an error
    assert not [name for name in distiller.loss(inputs, samples) if name.startswith('ld')]


def test_what_does_not_fit_is_refused(wide_gfl, wide_retinanet):
    with pytest.raises(ValueError, match='LD compares the distributions.*the teacher has a RetinaHead'):
        build(wide_retinanet)
    with pytest.raises(ValueError, match='LD compares the outputs of the heads'):
        build(wide_gfl, student=tiny_gfl(reg_max=5))
    for wrong in (dict(tau=0.0), dict(tau_kd=-1.0), dict(w_main=-1.0), dict(bins='max'), dict(confidence='both')):
        with pytest.raises(ValueError, match=f'LD.*{next(iter(wrong))}'):
            LD(**wrong)
