import pytest
import torch
from reference import reached, second_teacher, stir
from torch.nn.functional import cosine_similarity, cross_entropy

from mmrkd.models import Progress
from mmrkd.models.losses import kept_kl, kept_rows, kl_divergence
from mmrkd.models.methods import SSKD, sskd
from mmrkd.testing import build_distiller, build_model, classification_batch, model_inputs, tiny_classifier

TERMS = ('kd', 'tf', 'ss', 'head')


def build(teacher, student=None, batch=None, **sskd):
    options = {} if sskd.get('rotate') != 'pipeline' else dict(view_names=('plain', *SSKD().made_views))
    methods = [dict(type='mmrkd.SSKD', **sskd)]
    distiller = build_distiller(student or tiny_classifier(8), teacher, methods, seed=3, **options).double().train()
    stir(distiller.methods[0])
    inputs, samples = model_inputs(distiller, batch or classification_batch())
    return distiller, inputs.double(), samples


def views_of(inputs):
    """Quarter turns, counter-clockwise, by transposing and flipping."""
    return [inputs, inputs.transpose(2, 3).flip(2), inputs.flip(2, 3), inputs.transpose(2, 3).flip(3)]


def image_by_image(views):
    return torch.stack([views[turn][n] for n in range(len(views[0])) for turn in range(1, len(views))])


def similarity(head, feats):
    """Cosine of each turned image with each original."""
    turned, originals = head(image_by_image(feats)), head(feats[0])
    return torch.stack([cosine_similarity(row[None], originals, dim=1) for row in turned])


def reference(teacher, method, inputs, labels, joint=True, ratio_tf=1.0, ratio_ss=0.75):
    plain, model = second_teacher(teacher), build_model(tiny_classifier(8), seed=3).double().train()
    views = views_of(inputs)
    f_t = [plain.extract_feat(view)[0] for view in views]
    f_s = model.extract_feat(torch.cat(views))[0].chunk(4) if joint else [model.extract_feat(v)[0] for v in views]
    z_t, z_s = ([m.head((f,)) for f in feats] for m, feats in ((plain, f_t), (model, f_s)))
    own = torch.arange(len(inputs)).repeat_interleave(3)
    s_t, s_s = similarity(method.teacher_head, f_t), similarity(method.student_head, f_s)
    turned = [image_by_image(z) for z in (z_s, z_t)]
    kept = kept_rows(turned[1], labels.repeat_interleave(3), ratio_tf), kept_rows(s_t, own, ratio_ss)
    return dict(
        task=0.1 * cross_entropy(z_s[0], labels),
        kd=0.9 * kl_divergence(z_s[0], z_t[0], 4.0),
        tf=2.7 * kept_kl(*turned, kept[0], 4.0),
        ss=10 * kept_kl(s_s, s_t, kept[1], 0.5),
        head=cross_entropy(s_t, own),
        kept=[k.tolist() for k in kept],
    )


@pytest.mark.parametrize('sskd', [{}, dict(joint=False, ratio_tf=0.5, ratio_ss=0.2)], ids=str)
def test_terms(wide_classifier, sskd):
    distiller, inputs, samples = build(wide_classifier, **sskd)
    labels = torch.tensor([sample.gt_label.item() for sample in samples])
    expected = reference(wide_classifier, distiller.methods[0], inputs, labels, **sskd)
    before = distiller.teacher.fingerprint()
    found = distiller.loss(inputs, samples)
    assert set(found) == {'loss', 'sskd.head_accuracy', *(f'sskd.loss_{name}' for name in TERMS)}
    assert found['loss'].item() == pytest.approx(expected['task'].item(), rel=1e-6)
    for name in TERMS:
        assert found[f'sskd.loss_{name}'].item() == pytest.approx(expected[name].item(), rel=1e-5), name
    assert not all(expected['kept'][1]), 'the choice of rows matters'
    distiller.parse_losses(found)[0].backward()
    assert all(p.grad is not None for p in distiller.parameters())
    assert distiller.teacher.fingerprint() == before


def test_who_learns_from_what(wide_classifier):
    distiller, inputs, samples = build(wide_classifier)
    method = distiller.methods[0]
    parts = dict(student=distiller.student.backbone, own=method.student_head, teachers=method.teacher_head)
    parts = {name: list(module.parameters()) for name, module in parts.items()}
    found = distiller.loss(inputs, samples)
    assert reached(found['sskd.loss_head'], parts) == {'teachers'}
    assert reached(found['sskd.loss_ss'], parts) == {'student', 'own'}
    assert reached(found['sskd.loss_tf'], parts) == reached(found['sskd.loss_kd'], parts) == {'student'}
    assert all(p.grad is None for p in distiller.teacher.model.parameters())
    widths = [layer.weight.shape for layer in (method.student_head[0], method.teacher_head[2])]
    assert widths == [(64, 64), (128, 128)]


def test_views_of_the_pipeline_are_the_same_views(wide_classifier):
    distiller, inputs, samples = build(wide_classifier, rotate='pipeline')
    other, *_ = build(wide_classifier)
    found = distiller.loss(inputs, samples, views_of(inputs)[1:])
    expected = other.loss(inputs, samples)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_similarity_joins_in_by_a_ramp_and_an_ignorant_head_is_named(wide_classifier, monkeypatch):
    distiller, inputs, samples = build(wide_classifier, head_epochs=2)
    method, values, warnings = distiller.methods[0], [], []
    monkeypatch.setattr(sskd, 'print_log', lambda text, *_: warnings.append(text))
    whole = build(wide_classifier)[0].loss(inputs, samples)['sskd.loss_ss'].item()
    torch.nn.init.zeros_(method.teacher_head[2].weight)  # all similarities are one
    assert distiller.loss(inputs, samples)['sskd.loss_ss'] > 0, 'without a runner it is on'
    for epochs in (0.0, 1.9, 3.0, 4.0, 7.0):
        method.progress = Progress(epochs, epochs / 10)
        values.append(distiller.loss(inputs, samples)['sskd.loss_ss'].item())
        assert len(warnings) == (epochs > 2)
    assert values[:2] == [0, 0] and values[2] == pytest.approx(values[3] / 2, rel=1e-6) and values[3] > 0
    assert whole > 0 and 'finds the original of only 25%' in warnings[0]


def test_by_default_it_joins_in_after_a_tenth(wide_classifier):
    distiller, inputs, samples = build(wide_classifier)
    for share, on in ((0.0, False), (0.1, False), (0.11, True)):
        distiller.methods[0].progress = Progress(100.0, share)
        assert (distiller.loss(inputs, samples)['sskd.loss_ss'].item() > 0) == on


class TestPhases:
    def test_first_the_head_alone_learns_and_then_all_but_the_head(self, wide_classifier):
        distiller, inputs, samples = build(wide_classifier, schedule='first', head_epochs=2)
        method = distiller.methods[0]
        assert [method.phase_of(epoch) for epoch in (0, 1, 2, 9)] == ['head', 'head', 'student', 'student']
        with pytest.raises(ValueError, match='needs mmrkd.PhaseHook'):
            distiller.loss(inputs, samples)
        state = {name: value.clone() for name, value in distiller.state_dict().items()}
        for phase in ('head', 'student'):
            method.enter_phase(phase)
            distiller.train()
            method.hold_frozen()
            optimizer = torch.optim.SGD(distiller.parameters(), 0.1, weight_decay=0.1)
            found = distiller.loss(inputs, samples)
            terms = {name for name in found if 'loss' in name}
            distiller.parse_losses(found)[0].backward()
            assert all(p.grad is not None for p in distiller.parameters() if p.requires_grad), phase
            optimizer.step()
            moved = {n.partition('head')[0] + 'head' * ('head' in n) for n, v in distiller.state_dict().items()
                     if not torch.equal(v, state[n])}  # fmt: skip
            if phase == 'head':
                assert terms == {'loss', 'sskd.loss_head'} and moved == {'methods.sskd.teacher_head'}
                assert found['loss'] == 0
            else:
                assert terms == {'loss', 'sskd.loss_kd', 'sskd.loss_tf', 'sskd.loss_ss'}
                assert 'methods.sskd.teacher_head' not in moved and 'methods.sskd.student_head' in moved
            state = {name: value.clone() for name, value in distiller.state_dict().items()}

    def test_the_releases_length_is_the_default(self):
        assert SSKD(schedule='first').phase_epochs == (60,) and SSKD().phase_epochs == ()


class TestRefusals:
    def test_images_that_are_not_square(self, wide_classifier):
        distiller, inputs, samples = build(wide_classifier)
        with pytest.raises(ValueError, match=r'turns square images, found \(32, 24\)'):
            distiller.loss(inputs[..., :24], samples)

    def test_mixed_images(self, wide_classifier):
        student = tiny_classifier(8)
        student['data_preprocessor']['batch_augments'] = dict(augments=dict(type='Mixup', alpha=0.8))
        with pytest.raises(ValueError, match=r'\(Mixup\) mix .* sskd'):
            build(wide_classifier, student)

    def test_a_pipeline_of_one_view(self, wide_classifier):
        distiller, inputs, samples = build(wide_classifier, rotate='pipeline')
        with pytest.raises(ValueError, match=r'(?s)num_views=\[1, 1, 1, 1\].*turned_90 view'):
            distiller.loss(inputs, samples)

    @pytest.mark.parametrize(
        'sskd, message',
        [
            (dict(tau_ss=0.0), 'tau_ss=0.0'),
            (dict(w_tf=-1.0), 'w_tf=-1.0'),
            (dict(ratio_ss=2.0), 'ratio_ss=2.0'),
            (dict(schedule='last'), "schedule must be one of.*'last'"),
            (dict(rotate='never'), "rotate one of.*'never'"),
            (dict(schedule='first', head_epochs=0), 'head_epochs at least 1'),
        ],
        ids=str,
    )
    def test_numbers_out_of_range(self, sskd, message):
        with pytest.raises(ValueError, match=message):
            SSKD(**sskd)
