import math

import torch

from mmrkd.models.losses import explained_variance


def test_by_hand():
    """Two channels with means 1 and 4 and squared deviations 1 and 4; half of each deviation leaves a quarter."""
    target = torch.tensor([[0.0, 2.0], [2.0, 6.0]])
    half = torch.tensor([[0.5, 3.0], [1.5, 5.0]])
    mean = torch.tensor([[1.0, 4.0], [1.0, 4.0]])
    assert explained_variance([target], [target]) == 1
    assert explained_variance([half], [target]) == 0.75
    assert explained_variance([mean], [target]) == 0
    assert explained_variance([torch.zeros(2, 2)], [target]) == 1 - 11 / 2.5  # mean square 11, mean variance 2.5


def test_levels_count_alike_whatever_their_size():
    """One level is explained entirely, one not at all; both have the variance 1, the second on four times the cells."""
    small = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)
    large = small.expand(2, 1, 2, 2)
    assert explained_variance([small, torch.zeros_like(large)], [small, large]) == 0.5


def test_half_precision_is_summed_in_single():
    target = torch.tensor([[300.0], [-300.0]], dtype=torch.float16)  # its squares are not finite in half precision
    assert explained_variance([target / 2], [target]) == 0.75


def test_targets_that_do_not_vary_have_nothing_to_explain():
    assert math.isnan(explained_variance([torch.zeros(2, 3)], [torch.ones(2, 3)]))
