import pytest
import torch
from reference import reached, second_teacher
from torch import nn

from mmrkd.models.heads import pruned_copy
from mmrkd.models.losses import rank_distance, value_distance
from mmrkd.models.methods import R2KD
from mmrkd.models.methods.batch_augments import augmented
from mmrkd.testing import build_distiller, build_model, classification_batch, model_inputs, tiny_classifier


def build(teacher, student=None, **r2kd):
    student = student or tiny_classifier(8)
    distiller = build_distiller(student, teacher, [dict(type='mmrkd.R2KD', **r2kd)], seed=3).double().train()
    inputs, samples = model_inputs(distiller, classification_batch())
    return distiller, inputs.double(), samples


def pruned_by_hand(model, rate):
    """Each layer loses what is smaller than its own threshold."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            size = module.weight.abs()
            lost = round(rate * size.numel())
            threshold = size.flatten().sort().values[lost]
            module.weight.data[size < threshold] = 0
    return model


@pytest.mark.parametrize('r2kd', [dict(augment='none'), dict(rank='soft'), dict(teacher_share=1.0, tau=1.0)], ids=str)
def test_terms(wide_classifier, r2kd):
    distiller, inputs, samples = build(wide_classifier, **r2kd)
    share = r2kd.get('teacher_share', 0.7)
    model = build_model(tiny_classifier(8), seed=3).double().train()
    plain, pruned = second_teacher(wide_classifier), pruned_by_hand(second_teacher(wide_classifier), 0.1)
    images = {'': inputs}
    if r2kd.get('augment') != 'none':
        torch.manual_seed(2)
        images['_augmented'] = augmented(inputs, 'cutmix')
        assert not torch.equal(inputs, images['_augmented'])
    expected = {}
    for of, x in images.items():
        z_t = share * plain.head(plain.extract_feat(x)) + (1 - share) * pruned.head(pruned.extract_feat(x))
        z_s = model.head(model.extract_feat(x))
        expected[f'r2kd.loss_value{of}'] = 2 * value_distance(z_s, z_t, r2kd.get('tau', 4.0)).item()
        expected[f'r2kd.spearman{of}'] = 1 - rank_distance(z_s, z_t).item()
        if r2kd.get('rank') == 'soft':
            expected[f'r2kd.loss_rank{of}'] = 2 * rank_distance(z_s, z_t, 1.0).item()
    before = distiller.teacher.fingerprint()
    torch.manual_seed(2)
    found = distiller.loss(inputs, samples)
    assert set(found) == {'loss', *expected}
    assert {name: found[name].item() for name in expected} == pytest.approx(expected, rel=1e-6)
    for name in expected:
        wanted = {'student'} if 'loss' in name else set()
        assert not found[name].requires_grad or (
            reached(found[name], dict(student=list(distiller.student.parameters()))) == wanted
        )
    distiller.parse_losses(found)[0].backward()
    assert distiller.teacher.fingerprint() == before


def test_the_pruned_copy_is_nobodys_and_as_the_teacher_is(wide_classifier):
    distiller, inputs, samples = build(wide_classifier)
    method = distiller.methods[0]
    assert method._pruned is None
    distiller.loss(inputs, samples)
    copy = method.pruned.model
    kept = {name: value.clone() for name, value in copy.state_dict().items()}
    for _ in range(2):
        distiller.train()
        distiller.loss(inputs, samples)
    assert method.pruned.model is copy and not any(module.training for module in copy.modules())
    assert all(torch.equal(value, kept[name]) for name, value in copy.state_dict().items())
    assert not any(p.requires_grad for p in copy.parameters())
    assert not list(method.parameters()) and not any(key.startswith('methods') for key in distiller.state_dict())
    distiller.float()
    assert next(method.pruned.model.parameters()).dtype == torch.float32, 'it is made anew where the teacher went'


@pytest.mark.parametrize('rate', [0.0, 0.1, 0.35])
def test_exactly_the_smallest_values_are_lost(rate):
    model = build_model(tiny_classifier(8), seed=1)
    copy, before = pruned_copy(model, rate), {name: value.clone() for name, value in model.state_dict().items()}
    layers = 0
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            own, other = module.weight.flatten(), copy.get_submodule(name).weight.flatten()
            zero, layers = other == 0, layers + 1
            assert zero.sum() == round(rate * own.numel())
            assert torch.equal(own[~zero], other[~zero])
            assert not zero.any() or own[zero].abs().max() <= own[~zero].abs().min()
        else:
            for key, value in module.named_buffers(recurse=False):
                assert torch.equal(value, dict(copy.named_buffers())[f'{name}.{key}'.strip('.')])
    assert layers > 10 and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class TestAugments:
    IMAGES = torch.arange(4.0).add(1)[:, None, None, None].expand(4, 3, 32, 32)

    def drawn(self, how, seed=0, **size):
        torch.manual_seed(seed)
        return augmented(self.IMAGES, how, **size)

    def test_cutout_fills_one_square_with_the_mean(self):
        sizes = set()
        for seed in range(20):
            hole = self.drawn('cutout', seed, cutout_size=8)[0, 0] == 0
            rows, columns = (hole.any(dim).sum().item() for dim in (1, 0))
            assert hole.sum() == rows * columns and 4 <= rows <= 8 and 4 <= columns <= 8
            sizes.add((rows, columns))
        assert (8, 8) in sizes

    def test_cutmix_fills_a_box_with_another_image(self):
        changed = []
        for seed in range(20):
            images = self.drawn('cutmix', seed)
            other = (images != self.IMAGES)[:, 0]
            for image, box in zip(images[:, 0], other):
                assert len(image[box].unique()) <= 1 and box.sum() == box.any(0).sum() * box.any(1).sum()
            changed.append(other.float().mean().item())
        assert max(changed) > 0.3 and min(changed) < 0.1

    def test_mixup_mixes_by_one_share(self):
        images = self.drawn('mixup', 3)
        assert (images.amax((1, 2, 3)) == images.amin((1, 2, 3))).all()
        assert images.sum().item() == pytest.approx(self.IMAGES.sum().item(), rel=1e-6)

    @pytest.mark.parametrize('how', ['cutmix', 'mixup', 'cutout'])
    def test_draws_are_torchs(self, how):
        assert torch.equal(self.drawn(how, 5), self.drawn(how, 5))
        assert any(not torch.equal(self.drawn(how, 5), self.drawn(how, seed)) for seed in (6, 7))


def test_the_second_batch_may_come_from_the_pipeline(wide_classifier):
    distiller, inputs, samples = build(wide_classifier, augment='pipeline', teacher_share=1.0)
    strong = model_inputs(distiller, classification_batch(seed=7))[0].double()
    plain, model = second_teacher(wide_classifier), build_model(tiny_classifier(8), seed=3).double().train()
    expected = 2 * value_distance(*(m.head(m.extract_feat(strong)) for m in (model, plain)), 4.0)
    found = distiller.loss(inputs, samples, (strong,))['r2kd.loss_value_augmented']
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(
    'r2kd, message',
    [
        (dict(tau=-1.0), 'tau=-1.0'),
        (dict(w_value=-1.0), 'w_value=-1.0'),
        (dict(prune_rate=1.0), 'prune_rate less than 1'),
        (dict(teacher_share=1.1), 'teacher_share=1.1'),
        (dict(augment='cutmixpick'), "augment must be one of.*'cutmixpick'"),
        (dict(rank='hard'), "rank one of.*'hard'"),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(r2kd, message):
    with pytest.raises(ValueError, match=message):
        R2KD(**r2kd)


def test_what_has_no_gradient_has_no_weight():
    assert R2KD().w_rank == 0 and R2KD(rank='soft').w_rank == 2
    assert not R2KD(w_value=0.0).active and R2KD(w_value=0.0, rank='soft').active
