"""Sums of divergences that know their gradient, against autograd on the formula as it is written."""

import pytest
import torch

from mmrkd.models.losses import background_kl, box_distribution_kl, box_l1, divergences, sigmoid_kl
from mmrkd.models.losses.divergences import bernoulli_sum, softmax_sum

SIZES = (7, 4, 1)


def levels(seed, columns=3, dtype=torch.double, spread=4.0):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(rows, columns, generator=generator, dtype=dtype) * spread).requires_grad_() for rows in SIZES]


def bernoulli(student, teacher, tau):
    p, q = (z / tau for z in (teacher, student))
    p, log_q, log_not_q = p.sigmoid(), torch.nn.functional.logsigmoid(q), torch.nn.functional.logsigmoid(-q)
    divergence = p * (p.log() - log_q) + (1 - p) * ((1 - p).log() - log_not_q)
    return divergence.sum() * tau**2 / p.amax(1).sum().clamp(min=1)


def categorical(student, teacher, tau, weights):
    p, q = (torch.distributions.Categorical(logits=z / tau) for z in (teacher, student))
    return (torch.distributions.kl_divergence(p, q) * weights).sum() * tau**2


def assert_same(found, expected, student):
    assert found.item() == pytest.approx(expected.item(), rel=1e-9) and expected > 0.1
    gradients = [torch.autograd.grad(value, student, retain_graph=True) for value in (2.5 * found, 2.5 * expected)]
    for own, other in zip(*gradients):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('tau', [1.0, 3.0])
class TestLevels:
    def test_bernoulli(self, tau):
        student, teacher = levels(1), levels(2)
        assert_same(sigmoid_kl(student, teacher, tau), bernoulli(torch.cat(student), torch.cat(teacher), tau), student)

    def test_maps_part_by_part(self, tau, monkeypatch):
        """Two images, three scores at each of two priors of a cell."""
        monkeypatch.setattr(divergences, 'LEAST_PART', 8)
        generator = torch.Generator().manual_seed(3)
        sizes = ((2, 6, 5, 3), (2, 6, 1, 2))
        student, teacher = ([torch.randn(size, generator=generator).double() * 3 for size in sizes] for _ in range(2))
        student = [z.requires_grad_() for z in student]
        assert len(divergences._parts(student[0])) == 5
        rows = [torch.cat([z.permute(0, 2, 3, 1).reshape(-1, 3) for z in levels]) for levels in (student, teacher)]
        assert_same(sigmoid_kl(student, teacher, tau, columns=3), bernoulli(*rows, tau), student)

    def test_background(self, tau):
        student, teacher = levels(1), levels(2)
        z_t = torch.cat(teacher).detach()
        objects = (z_t / tau).softmax(1)[:, :-1].amax(1).sum().clamp(min=1)
        expected = categorical(torch.cat(student), z_t, tau, 1) / objects
        assert_same(background_kl(student, teacher, tau), expected, student)

    def test_distributions_of_boxes(self, tau):
        student, teacher = levels(1, 12), levels(2, 12)
        confidence = [torch.rand(rows, dtype=torch.double) for rows in SIZES]
        sides = [torch.cat(z).reshape(-1, 3) for z in (student, teacher)]
        weights = torch.cat(confidence).repeat_interleave(4) / 4 / torch.cat(confidence).sum().clamp(min=1)
        found = box_distribution_kl(student, teacher, confidence, 3, tau)
        assert_same(found, categorical(*sides, tau, weights), student)


def test_boxes_of_levels_are_those_of_their_concatenation():
    student, teacher, scales = levels(1, 4), levels(2, 4), [z.detach().abs() + 1 for z in levels(3, 4)]
    confidence = [torch.rand(rows, dtype=torch.double) for rows in SIZES]
    for scale in ([None] * len(SIZES), scales):
        joined = None if scale[0] is None else torch.cat(scale)
        expected = box_l1(torch.cat(student), torch.cat(teacher), torch.cat(confidence), joined)
        assert_same(box_l1(student, teacher, confidence, scale), expected, student)


@pytest.mark.parametrize('divergence', [lambda s, t: bernoulli_sum(s, t, 2.0)[0], lambda s, t: softmax_sum(s, t, 2.0)])
class TestWhatIsKept:
    def test_one_tensor_and_no_gradient_for_the_target(self, divergence):
        student, teacher = levels(1)[0], levels(2)[0]
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
            value = divergence(student, teacher)
        assert kept == [student.shape]
        value.backward()
        assert teacher.grad is None and student.grad.abs().sum() > 0

    def test_the_logits_stay_as_they_are(self, divergence):
        student, teacher = levels(1)[0], levels(2)[0]
        before = student.detach().clone(), teacher.detach().clone()
        divergence(student, teacher).backward()
        assert torch.equal(student, before[0]) and torch.equal(teacher, before[1])

    @pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
    def test_half_precision_is_summed_in_single_and_answered_in_half(self, divergence, dtype):
        student, teacher = ([z.detach().to(dtype) for z in levels(seed)][0] for seed in (1, 2))
        exact = student.double().requires_grad_()
        expected, found = divergence(exact, teacher.double()), divergence(student.requires_grad_(), teacher)
        assert found.dtype == torch.float32 and found.item() == pytest.approx(expected.item(), rel=1e-5)
        expected.backward(), found.backward()
        assert student.grad.dtype == dtype
        torch.testing.assert_close(student.grad.double(), exact.grad, rtol=1e-2, atol=1e-3)

    def test_a_student_that_learns_nothing_keeps_nothing(self, divergence):
        student = levels(1)[0].detach()
        assert not divergence(student, levels(2)[0]).requires_grad
