import pytest
import torch
from hand_logits import LABELS, hand_logits
from reference import reached, second_teacher

from mmrkd.models.losses import cross_view_kl
from mmrkd.models.methods import CRLD
from mmrkd.testing import (
    build_distiller,
    build_model,
    classification_batch,
    detection_batch,
    model_inputs,
    tiny_classifier,
    tiny_retinanet,
)

NAMES = ('strong_task', 'within', 'cross')


def build(teacher, student=None, batch=classification_batch, **crld):
    student = student or tiny_classifier(8)
    distiller = build_distiller(student, teacher, [dict(type='mmrkd.CRLD', **crld)], seed=3).double().train()
    inputs, samples = model_inputs(distiller, batch())
    strong, _ = model_inputs(distiller, batch(seed=7))
    return distiller, inputs.double(), samples, strong.double()


def labels_of(samples):
    return torch.tensor([sample.gt_label.item() for sample in samples])


@pytest.mark.parametrize('crld', [{}, dict(tau=1.0, w_ce=2.0, gate='target')], ids=str)
def test_terms(wide_classifier, crld):
    distiller, inputs, samples, strong = build(wide_classifier, **crld)
    plain, model = second_teacher(wide_classifier), build_model(tiny_classifier(8), seed=3).double().train()
    z_s = [model.head(model.extract_feat(images)) for images in (inputs, strong)]
    z_t = [plain.head(plain.extract_feat(images)) for images in (inputs, strong)]
    method = distiller.methods[0]
    method.tau_weak, method.tau_strong = (z.detach().softmax(1).amax(1).median().item() for z in z_t)  # 3 of 4 are sure
    terms = cross_view_kl(
        *z_s, *z_t, crld.get('tau', 4.0), method.tau_weak, method.tau_strong, crld.get('gate', 'released')
    )
    ce = [torch.nn.functional.cross_entropy(z, labels_of(samples)) for z in z_s]
    w_ce = crld.get('w_ce', 1.0)
    before = distiller.teacher.fingerprint()
    found = distiller.loss(inputs, samples, (strong,))
    expected = [w_ce * ce[1], 2 * terms[0], 0.5 * terms[1]]
    assert [found[f'crld.loss_{name}'].item() for name in NAMES] == pytest.approx(
        [term.item() for term in expected], rel=1e-6
    )
    assert found['loss'].item() == pytest.approx(w_ce * ce[0].item(), rel=1e-9)
    assert min(term.item() for term in expected) > 1e-4
    assert set(found) == {'loss', *(f'crld.loss_{name}' for name in NAMES), 'crld.kept_weak', 'crld.kept_strong'}
    assert found['crld.kept_weak'] == found['crld.kept_strong'] == 0.75
    assert reached(found['crld.loss_cross'], dict(student=list(distiller.student.parameters()))) == {'student'}
    distiller.parse_losses(found)[0].backward()
    assert distiller.teacher.fingerprint() == before and not list(distiller.methods.parameters())


def test_views_are_seen_apart_or_as_one_batch(wide_classifier):
    """Running statistics move once for each pass."""
    batches = []
    for joint in (False, True):
        distiller, inputs, samples, strong = build(wide_classifier, joint=joint)
        distiller.loss(inputs, samples, (strong,))
        batches.append({k: v for k, v in distiller.student.state_dict().items() if 'backbone.bn1' in k})
    assert [int(b['backbone.bn1.num_batches_tracked']) for b in batches] == [2, 1]
    model = build_model(tiny_classifier(8), seed=3).double().train()
    model.extract_feat(torch.cat([inputs, strong]))
    expected = dict(model.named_buffers())['backbone.bn1.running_mean']
    torch.testing.assert_close(batches[1]['backbone.bn1.running_mean'], expected)
    assert not torch.allclose(batches[0]['backbone.bn1.running_mean'], expected)


def test_labels_of_both_views_alone_are_the_control(wide_classifier):
    distiller, inputs, samples, strong = build(wide_classifier, w_within=0.0, w_cross=0.0)
    calls = []
    distiller.teacher.model.backbone.register_forward_hook(lambda *_: calls.append(1))
    assert set(distiller.loss(inputs, samples, (strong,))) == {'loss', 'crld.loss_strong_task'} and not calls


def test_all_weights_of_zero_are_the_plain_run_bit_for_bit(wide_classifier):
    """On the first view of the same batch, buffers and gradients included."""
    models = []
    for off in (True, False):
        if off:
            model, inputs, samples, strong = build(wide_classifier, w_ce=0.0, w_within=0.0, w_cross=0.0)
            losses = model.loss(inputs, samples, (strong,))
        else:
            model = build_model(tiny_classifier(8), seed=3).double().train()
            losses = model(inputs, samples, mode='loss')
        model.parse_losses(losses)[0].backward()
        model = model.student if off else model
        models.append({**model.state_dict(), **{f'{n} grad': p.grad for n, p in model.named_parameters()}})
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())


def test_the_whole_by_hand():
    """The weighted sum of the specification, with its numbers."""
    z_s, z_t = hand_logits()
    change = torch.tensor([[0, 0, 1, 0], [0.5, 0, 0, 0], [1, 0, 0, -1.5]], dtype=torch.float64)
    views = (z_s, 0.5 * z_s.flip(1), 2 * z_t, z_t + change)
    method = CRLD(tau_weak=0.75, tau_strong=0.45)
    terms = cross_view_kl(*views, method.tau, method.tau_weak, method.tau_strong, method.gate)
    ce = sum(torch.nn.functional.cross_entropy(z, LABELS) for z in views[:2])
    total = method.w_ce * ce + method.w_within * terms[0] + method.w_cross * terms[1]
    assert total.item() == pytest.approx(4.149227, abs=1e-6)


class TestRefusals:
    def test_a_batch_of_one_view_with_the_lines_to_paste(self, wide_classifier):
        distiller, inputs, samples, _ = build(wide_classifier)
        with pytest.raises(ValueError, match=r'(?s)crld reads the views .* MultiView.*\[\.\.\.strong view\.\.\.\]'):
            distiller.loss(inputs, samples)
        assert all(p.grad is None for p in distiller.parameters())

    def test_mixed_images_by_the_name_of_what_mixes_them(self, wide_classifier):
        student = tiny_classifier(8)
        augments = [dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]
        student['data_preprocessor']['batch_augments'] = dict(augments=augments, probs=[0.5, 0.5])
        with pytest.raises(ValueError, match=r'\(Mixup, CutMix\) mix .* crld .* take batch_augments out'):
            build(wide_classifier, student)
        assert build_distiller(student, wide_classifier, [dict(type='mmrkd.GDKD', k=2)])

    @pytest.mark.parametrize(
        'crld, message',
        [
            (dict(tau=0.0), 'tau=0.0'),
            (dict(w_cross=-1.0), 'w_cross=-1.0'),
            (dict(tau_weak=1.5), 'from 0 to 1 expected, found tau_weak=1.5'),
            (dict(gate='both'), "gate must be one of .*'both'"),
        ],
        ids=str,
    )
    def test_numbers_out_of_range(self, crld, message):
        with pytest.raises(ValueError, match=message):
            CRLD(**crld)

    def test_detectors(self, wide_retinanet):
        with pytest.raises(ValueError, match='CRLD compares classifiers'):
            build(wide_retinanet, tiny_retinanet(), detection_batch)
