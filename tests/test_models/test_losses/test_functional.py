import math

import pytest
import torch
from torch.distributions import Bernoulli, Categorical
from torch.distributions import kl_divergence as exact_kl

from mmrkd.models.losses import (
    attention_distance,
    box_distribution_kl,
    box_l1,
    cosine_distance,
    feature_mse,
    kl_divergence,
    sigmoid_kl,
)

LOG2, LOG3 = math.log(2), math.log(3)
NARROW = [torch.bfloat16, torch.float16]


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_feature_mse_by_hand():
    # Level 0: (1 + 4 + 0 + 1) / 4 = 1.5. Level 1: (9 + 0) / 2 = 4.5. Mean over levels: 3, and not (6 + 9) / 6 = 2.5.
    estimates = [torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.tensor([[[[5.0]], [[1.0]]]])]
    targets = [torch.tensor([[0.0, 0.0], [0.0, 2.0]]), torch.tensor([[[[2.0]], [[1.0]]]])]
    assert feature_mse(estimates, targets).item() == pytest.approx(3.0)
    assert feature_mse(estimates[:1], targets[:1]).item() == pytest.approx(1.5)


def test_gradient_of_feature_mse_by_hand():
    # d/de of mean((e - t)^2) over 2 elements and 2 levels: 2 (e - t) / 2 / 2.
    estimates = [torch.tensor([[1.0, 4.0]], requires_grad=True), torch.tensor([[0.0, -2.0]], requires_grad=True)]
    targets = [torch.tensor([[0.0, 1.0]], requires_grad=True), torch.tensor([[0.0, 0.0]], requires_grad=True)]
    feature_mse(estimates, targets).backward()
    assert torch.equal(estimates[0].grad, torch.tensor([[0.5, 1.5]]))
    assert torch.equal(estimates[1].grad, torch.tensor([[0.0, -1.0]]))
    assert targets[0].grad is None and targets[1].grad is None


def test_kl_divergence_by_hand():
    # p_t = softmax(log 3, 0) = (3/4, 1/4), p_s = (1/2, 1/2):
    # 3/4 log(3/2) + 1/4 log(1/2) = 3/4 log 3 - log 2. The second sample is equal on both sides: mean over 2.
    teacher = torch.tensor([[LOG3, 0.0], [1.0, 2.0]])
    student = torch.tensor([[5.0, 5.0], [11.0, 12.0]])
    assert kl_divergence(student, teacher).item() == pytest.approx((0.75 * LOG3 - LOG2) / 2, abs=1e-6)


def test_kl_divergence_at_a_temperature_by_hand():
    # Logits over tau = 2 are those of the test above, and tau^2 = 4.
    teacher = torch.tensor([[2 * LOG3, 0.0]])
    student = torch.tensor([[8.0, 8.0]])
    assert kl_divergence(student, teacher, tau=2.0).item() == pytest.approx(4 * (0.75 * LOG3 - LOG2), abs=1e-6)


def test_kl_divergence_is_that_of_the_teacher_from_the_student_and_not_the_reverse():
    student, teacher = randn(6, 5, seed=1), randn(6, 5, seed=2)
    forward = exact_kl(Categorical(logits=teacher), Categorical(logits=student)).mean().item()
    reverse = exact_kl(Categorical(logits=student), Categorical(logits=teacher)).mean().item()
    assert abs(forward - reverse) > 0.01
    assert kl_divergence(student, teacher).item() == pytest.approx(forward, rel=1e-5)


def test_gradient_of_kl_divergence_by_hand():
    # tau^2 / N * (q - p) / tau with tau = 2, N = 1, q = (1/2, 1/2), p = (3/4, 1/4).
    student = torch.tensor([[8.0, 8.0]], requires_grad=True)
    teacher = torch.tensor([[2 * LOG3, 0.0]], requires_grad=True)
    kl_divergence(student, teacher, tau=2.0).backward()
    torch.testing.assert_close(student.grad, torch.tensor([[-0.5, 0.5]]))
    assert teacher.grad is None


def test_sigmoid_kl_by_hand():
    # p = sigmoid(log 3) = 3/4, q = 1/2: 3/4 log(3/2) + 1/4 log(1/2) = 3/4 log 3 - log 2, once in each of 2 predictions;
    # the other classes agree. Objects: 3/4 + 3/4 = 1.5, and 2 / 1.5 = 4/3.
    teacher = torch.tensor([[LOG3, -7.0], [LOG3, -7.0]])
    student = torch.tensor([[0.0, -7.0], [0.0, -7.0]])
    assert sigmoid_kl(student, teacher).item() == pytest.approx(4 / 3 * (0.75 * LOG3 - LOG2), abs=1e-6)


def test_sigmoid_kl_counts_one_object_at_least():
    # p = sigmoid(-log 3) = 1/4, q = 1/2: 1/4 log(1/2) + 3/4 log(3/2) = 3/4 log 3 - log 2. Objects: 1/4, taken as 1.
    loss = sigmoid_kl(torch.tensor([[0.0]]), torch.tensor([[-LOG3]]))
    assert loss.item() == pytest.approx(0.75 * LOG3 - LOG2, abs=1e-6)


@pytest.mark.parametrize('tau', [1.0, 3.0])
def test_sigmoid_kl_against_bernoulli_distributions(tau):
    student, teacher = 3 * randn(7, 4, seed=1), 3 * randn(7, 4, seed=2)
    divergence = exact_kl(Bernoulli(logits=teacher / tau), Bernoulli(logits=student / tau)).sum()
    objects = torch.sigmoid(teacher / tau).max(1).values.sum()
    assert objects > 1
    expected = tau**2 * divergence / objects
    assert sigmoid_kl(student, teacher, tau).item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradient_of_sigmoid_kl_by_hand():
    # tau^2 / objects * (q - p) / tau with tau = 2, q = 1/2, p = 3/4, objects = max(1, 3/4).
    student = torch.tensor([[0.0]], requires_grad=True)
    teacher = torch.tensor([[2 * LOG3]], requires_grad=True)
    sigmoid_kl(student, teacher, tau=2.0).backward()
    torch.testing.assert_close(student.grad, torch.tensor([[-0.5]]))
    assert teacher.grad is None


@pytest.mark.parametrize('divergence', [kl_divergence, sigmoid_kl])
def test_extreme_logits_stay_finite(divergence):
    student = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = divergence(student, torch.tensor([[-200.0, 200.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(400.0)  # log q = -400 where p = 1; Bernoulli: 200 in each of two classes
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize('tau', [1.0, 4.0])
@pytest.mark.parametrize('divergence', [kl_divergence, sigmoid_kl])
def test_divergences_are_zero_at_equality_and_positive_elsewhere(divergence, tau):
    logits = randn(5, 6)
    assert divergence(logits, logits, tau).item() == pytest.approx(0.0, abs=1e-6)
    assert divergence(logits, logits + 0.3 * randn(5, 6, seed=1), tau).item() > 1e-3


def test_feature_mse_is_zero_at_equality():
    feats = [randn(2, 3, 4, 4), randn(2, 3, 2, 2)]
    assert feature_mse(feats, feats).item() == 0.0


@pytest.mark.parametrize('dtype', NARROW)
def test_feature_mse_of_narrow_inputs_is_computed_in_single_precision(dtype):
    estimates, targets = [randn(64, 64, seed=1).to(dtype)], [randn(64, 64, seed=2).to(dtype)]
    loss = feature_mse(estimates, targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((estimates[0].double() - targets[0].double()).square().mean().item(), rel=1e-5)


@pytest.mark.parametrize('dtype', NARROW)
@pytest.mark.parametrize('divergence', [kl_divergence, sigmoid_kl])
def test_divergences_of_narrow_inputs_are_computed_in_single_precision(divergence, dtype):
    student, teacher = randn(32, 10, seed=1).to(dtype), randn(32, 10, seed=2).to(dtype)
    loss = divergence(student, teacher, 2.0)
    assert loss.dtype == torch.float32
    assert loss.item() == divergence(student.float(), teacher.float(), 2.0).item()
    if divergence is kl_divergence:
        p, q = (Categorical(logits=logits.double() / 2) for logits in (teacher, student))
        assert loss.item() == pytest.approx(4 * exact_kl(p, q).mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    'estimates, targets, message',
    [
        ([(2, 3)], [(2, 3), (2, 3)], 'expected as many targets as estimates, found 2 and 1'),
        ([], [], 'found 0 and 0'),
        ([(2, 3)], [(1, 3)], r'level 0: the estimate has shape \(2, 3\), the target \(1, 3\)'),
        ([(2, 3), (2, 3, 4, 4)], [(2, 3), (2, 3, 4, 5)], r'level 1: the estimate has shape \(2, 3, 4, 4\)'),
    ],
)
def test_feature_mse_refuses_what_does_not_fit(estimates, targets, message):
    with pytest.raises(ValueError, match=message):
        feature_mse([torch.zeros(s) for s in estimates], [torch.zeros(s) for s in targets])


@pytest.mark.parametrize('loss', [kl_divergence, sigmoid_kl])
def test_kl_refuses_logits_that_would_broadcast_and_a_temperature_of_zero(loss):
    with pytest.raises(ValueError, match=r'student has \(4, 3\), the teacher \(1, 3\)'):
        loss(torch.zeros(4, 3), torch.zeros(1, 3))
    with pytest.raises(ValueError, match='tau must be > 0, found 0'):
        loss(torch.zeros(4, 3), torch.zeros(4, 3), tau=0)


def test_sigmoid_kl_is_exact_for_background():
    """Almost equal, very negative logits: a difference of large numbers would leave nothing but rounding."""
    student, teacher = torch.full((1000, 1), -12.0), torch.full((1000, 1), -12.5)
    p, q = teacher.double().sigmoid(), student.double().sigmoid()
    expected = (p * (p / q).log() + (1 - p) * torch.log1p((q - p) / (1 - q))).sum()
    assert sigmoid_kl(student, teacher).item() == pytest.approx(expected.item(), rel=1e-3)


def test_box_l1_by_hand():
    student = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 8.0], [9.0, 9.0, 9.0, 9.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, 0.0, 2.0, 1.0], [0.0] * 4, [0.0] * 4], requires_grad=True)
    confidence = torch.tensor([1.0, 0.5, 0.0])
    loss = box_l1(student, teacher, confidence)
    assert loss.item() == pytest.approx((1.0 * 4 / 4 + 0.5 * 8 / 4) / 1.5)
    loss.backward()
    assert student.grad[0].tolist() == pytest.approx([1 / 6, 0, -1 / 6, -1 / 6]) and student.grad[2].abs().sum() == 0
    assert teacher.grad is None


def test_box_l1_counts_one_object_at_least():
    loss = box_l1(torch.ones(2, 4), torch.zeros(2, 4), torch.tensor([0.1, 0.2]))
    assert loss.item() == pytest.approx(0.3)


def test_box_distribution_kl_by_hand():
    """Two bins; the teacher is sure of the first of one side, the student knows nothing."""
    teacher = torch.zeros(1, 4, 2)
    teacher[0, 1, 0] = 3 * torch.log(torch.tensor(3.0))  # 3/4 : 1/4 at tau 3
    student = torch.zeros(1, 8, requires_grad=True)
    loss = box_distribution_kl(student, teacher.reshape(1, 8), torch.tensor([1.0]), bins=2, tau=3.0)
    one_side = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert loss.item() == pytest.approx(9 * one_side / 4, rel=1e-5)
    loss.backward()
    # tau^2 / 4 sides * (q - p) / tau
    assert student.grad[0].tolist() == pytest.approx([0, 0, -0.25 * 3 / 4, 0.25 * 3 / 4, 0, 0, 0, 0], abs=1e-6)


def test_boxes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r'the student has \(2, 4\)'):
        box_l1(torch.zeros(2, 4), torch.zeros(1, 4), torch.zeros(2))
    with pytest.raises(ValueError, match='tau must be > 0'):
        box_distribution_kl(torch.zeros(1, 8), torch.zeros(1, 8), torch.zeros(1), bins=2, tau=0.0)


def test_cosine_distance_by_hand():
    # Two positions, channel vectors (3, 4) and (1, 0) against (4, 3) and (0, 2): 1 - 24/25 and 1 - 0.
    estimate = torch.tensor([[[[3.0, 1.0]], [[4.0, 0.0]]]], requires_grad=True)
    target = torch.tensor([[[[4.0, 0.0]], [[3.0, 2.0]]]], requires_grad=True)
    loss = cosine_distance([estimate], [target])
    assert loss.item() == pytest.approx((1 / 25 + 1) / 2)
    loss.backward()
    assert estimate.grad is not None and target.grad is None
    assert cosine_distance([estimate], [5 * estimate]).item() == pytest.approx(0, abs=1e-6)


def test_attention_distance_by_hand():
    # Sums of squares over channels: (9 + 0, 0 + 16) = (9, 16) of length sqrt(337), against (0, 4): (0, 1).
    estimate = torch.tensor([[[[3.0, 0.0]], [[0.0, 4.0]]]], requires_grad=True)
    target = torch.tensor([[[[0.0, 2.0]]]], requires_grad=True)  # one channel less
    norm = math.sqrt(337)
    loss = attention_distance([estimate], [target])
    expected = ((9 / norm) ** 2 + (16 / norm - 1) ** 2) / 2
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert estimate.grad is not None and target.grad is None
    assert attention_distance([estimate, estimate], [target, target]).item() == pytest.approx(2 * expected), 'a sum'
    assert attention_distance([estimate], [-3 * estimate]).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize('distance', [attention_distance, cosine_distance])
def test_distances_compute_in_float32_and_refuse_other_shapes(distance):
    estimate, target = randn(2, 3, 4, 4), randn(2, 3, 4, 4, seed=1)
    narrow = distance([estimate.bfloat16()], [target.bfloat16()])
    exact = distance([estimate.bfloat16().float()], [target.bfloat16().float()])
    assert narrow.dtype == torch.float32 and narrow.item() == pytest.approx(exact.item())
    with pytest.raises(ValueError, match='level 0: the estimate has shape'):
        distance([estimate], [target[..., :3]])
    with pytest.raises(ValueError, match='as many targets as estimates'):
        distance([estimate], [])


def test_vectors_have_no_attention():
    with pytest.raises(ValueError, match=r'needs maps .*\(2, 3\)'):
        attention_distance([randn(2, 3)], [randn(2, 3)])
