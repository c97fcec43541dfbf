import pytest
import torch
from map_numbers import F_S, F_T, Z_S, Z_T, agrees_in_double, gradients

from mmrkd.models.losses import align_statistics, box_overlaps, quality_focal

WEIGHTS = torch.tensor([1, 0.5, 0])


def test_alignment_worked_out_by_hand():
    found = align_statistics(F_S, F_T)[:, 0].flatten().tolist()
    assert found == pytest.approx([-0.066971, 1.476408, 3.019786, 0.704718, 0.704718, -0.838660], abs=1e-5)
    assert agrees_in_double(align_statistics, F_S, F_T)


def test_alignment_gives_statistics_and_keeps_the_rest():
    student, teacher = torch.randn(3, 4, 5, 6, dtype=torch.double), torch.rand(3, 4, 5, 6, dtype=torch.double)
    found = align_statistics(student, teacher)
    for c in range(4):
        assert found[:, c].mean().item() == pytest.approx(teacher[:, c].mean().item())
        assert found[:, c].std().item() == pytest.approx(teacher[:, c].std().item(), rel=1e-4)
        assert torch.corrcoef(torch.stack([found[:, c].flatten(), student[:, c].flatten()]))[0, 1] > 0.999999
    torch.testing.assert_close(align_statistics(teacher, teacher), teacher, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(align_statistics(3 * student + 7, teacher), found, rtol=1e-4, atol=1e-4)
    own, others = gradients(lambda s, t: align_statistics(s, t).square().sum(), F_S, F_T)
    assert own.isfinite().all() and others is None


def test_one_value_in_a_channel_becomes_the_teachers():
    assert align_statistics(torch.ones(1, 2, 1, 1), torch.full((1, 2, 1, 1), 3.0)).flatten().tolist() == [3.0, 3.0]


def test_quality_focal_worked_out_by_hand():
    assert quality_focal(Z_S, Z_T, WEIGHTS, 2).item() == pytest.approx(0.208868, abs=1e-6)
    assert agrees_in_double(lambda s, t: quality_focal(s, t, WEIGHTS, 2), Z_S, Z_T)
    assert quality_focal(Z_T, Z_T, WEIGHTS, 2) == 0


def test_quality_focal_gradient():
    """The modulator is not detached: d/dz of |p - q| BCE(z, q) is |p - q| (p - q) + sign(p - q) p (1 - p) BCE."""
    own, others = gradients(lambda s, t: quality_focal(s, t, WEIGHTS, 2), Z_S, Z_T)
    p, q = Z_S.sigmoid(), Z_T.sigmoid()
    bce = -(q * p.log() + (1 - q) * (1 - p).log())
    expected = ((p - q).abs() * (p - q) + (p - q).sign() * p * (1 - p) * bce) * WEIGHTS[:, None] / 2
    torch.testing.assert_close(own, expected)
    assert others is None and own[2].abs().sum() == 0 and own[:2].abs().sum() > 0.1


def test_overlaps():
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 2, 1], [1, 1, 1, 1]])
    b = torch.tensor([[1.0, 1, 3, 3], [2, 0, 3, 1], [0, 0, 2, 1], [1, 1, 1, 1]])
    iou, giou = box_overlaps(a, b)
    assert iou.tolist() == pytest.approx([1 / 7, 0, 1, 0])
    assert giou[:3].tolist() == pytest.approx([1 / 7 - 2 / 9, -1 / 3, 1]) and giou.isfinite().all()
    scaled = [torch.cat([x[:, :2] * torch.tensor([3, 5]), x[:, 2:] * torch.tensor([3, 5])], 1) + 7 for x in (a, b)]
    torch.testing.assert_close(box_overlaps(*scaled)[1][:3], giou[:3])
    own, others = gradients(lambda s, t: box_overlaps(s, t)[1].sum(), a[:2], b[:2])
    assert own.abs().sum() > 0 and others is None


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='one shape expected'):
        align_statistics(F_S, F_T[:1])
    with pytest.raises(ValueError, match='one shape expected'):
        quality_focal(Z_S, Z_T[:1], WEIGHTS, 2)
