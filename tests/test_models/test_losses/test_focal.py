import pytest
import torch
from map_numbers import agrees_in_double, gradients

from mmrkd.models.losses import focal_masks, focal_terms, squared_error

F_S = torch.tensor([[[[1.0, 0, 2], [0.5, 1, 0]], [[0, 1, 1], [2, 0, 0.5]]]])
F_T = torch.tensor([[[[2.0, 1, 0], [0, 1, 1]], [[1, 0, 1], [1, 2, 0]]]])
BOX = torch.tensor([[8.0, 0, 20, 6]])  # on an image of 16 x 24 pixels, stride 8


def terms(f_s=F_S, f_t=F_T, boxes=BOX / 8):
    return focal_terms(f_s, f_t, *focal_masks([boxes] * len(f_s), f_s.shape[2:]), 0.5)


def test_numbers_worked_out_by_hand():
    fg, bg, attention = (term.item() for term in terms())
    assert fg == pytest.approx(1.960060, abs=1e-5) and bg == pytest.approx(2.560659, abs=1e-5)
    assert attention == pytest.approx(8.061952, abs=1e-5)
    relation = squared_error(F_S, F_T).item()
    assert relation == 14.5
    total = 1e-3 * fg + 5e-4 * bg + 5e-4 * attention + 5e-6 * relation
    assert total == pytest.approx(0.007344, abs=1e-6)
    for index in range(3):
        assert agrees_in_double(lambda s, t, i=index: terms(s, t)[i], F_S, F_T)


def test_images_are_averaged():
    twice = terms(torch.cat([F_S, F_S]), torch.cat([F_T, F_T]))
    for one, other in zip(twice, terms()):
        assert one.item() == pytest.approx(other.item())


def test_nothing_is_lost_at_equality():
    assert all(term.item() == pytest.approx(0, abs=1e-6) for term in terms(F_T, F_T))


def test_gradients():
    for index in range(3):
        own, others = gradients(lambda s, t, i=index: terms(s, t)[i], F_S, F_T)
        assert own.abs().sum() > 0.1 and others is None
    own, _ = gradients(lambda s, t: terms(s, t)[0], F_S, F_T)
    assert own[..., 0].abs().sum() == 0 and own[..., 1:].abs().sum() > 0, 'the box covers the right columns'
    attention = (F_T.abs().mean(1) / 0.5).flatten().softmax(0).reshape(2, 3) * 6
    channels = (F_T.abs().mean((0, 2, 3)) / 0.5).softmax(0) * 2
    expected = 2 * (F_S - F_T) * attention * channels[:, None, None] / 6
    torch.testing.assert_close(own[..., 1:], expected[..., 1:])  # the weights are constants


def test_cells_of_boxes():
    """A small box within a large one, one that leaves the map, one outside of it, none."""
    nested = torch.tensor([[0.0, 0, 3, 2], [1.2, 0.4, 1.9, 0.9]])
    fg, bg = focal_masks([nested, torch.tensor([[2.5, 1.0, 7.0, 1.0]]), torch.tensor([[9.0, 9, 11, 11]])], (3, 5))
    small, large = 1 / 4, 1 / 12  # cells 1..2 x 0..1 and 0..3 x 0..2
    expected = [[large, small, small, large, 0], [large, small, small, large, 0], [large] * 4 + [0]]
    torch.testing.assert_close(fg[0], torch.tensor(expected))
    torch.testing.assert_close(bg[0], torch.tensor([[0.0, 0, 0, 0, 1 / 3]] * 3))
    outer = 1 / 6  # cells 2..7 of row 1, of which three are on the map
    torch.testing.assert_close(fg[1], torch.tensor([[0.0] * 5, [0, 0, outer, outer, outer], [0] * 5]))
    for image in (focal_masks([torch.zeros(0, 4)], (3, 5)), (fg[2:], bg[2:])):
        assert image[0].sum() == 0
        torch.testing.assert_close(image[1], torch.full((1, 3, 5), 1 / 15))


def test_a_map_that_is_covered_has_no_background():
    fg, bg = focal_masks([torch.tensor([[-1.0, -1, 5, 5]])], (2, 2))
    assert bg.sum() == 0 and torch.all(fg == 1 / 49)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='temp must be > 0'):
        focal_terms(F_S, F_T, torch.ones(1, 2, 3), torch.ones(1, 2, 3), 0.0)
    with pytest.raises(ValueError, match='one shape expected'):
        terms(F_S[:, :1])
