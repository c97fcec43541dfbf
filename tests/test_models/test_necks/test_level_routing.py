import pytest
import torch

from mmrkd.models.necks import PlaceLevels, SelectLevels


def levels(*values):
    return [torch.tensor(value) for value in values]


def test_levels_are_chosen_in_the_order_that_is_asked_for():
    assert [v.item() for v in SelectLevels((3, 1))(levels(0, 10, 20, 30))] == [30, 10]


def test_levels_are_placed_where_a_head_reads_them():
    assert [v.item() for v in PlaceLevels((3, 1), 4)(levels(7, 8))] == [7, 8, 7, 7]


def test_what_cannot_be_placed_is_refused():
    with pytest.raises(ValueError, match=r'indices must be in \[0, 3\], found \[4\]'):
        PlaceLevels([4], 4)
    with pytest.raises(ValueError, match='expected 2 levels, found 1'):
        PlaceLevels((0, 1), 2)(levels(1))
