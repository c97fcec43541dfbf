import math

import pytest
import torch
from torch import nn

from mmrkd.adapters.box_forms import centres, corners, deltas, distances, distances_of_prior
from mmrkd.adapters.scores import FLOOR, combined, flat, logit_of_geometric_mean, logit_of_probability, logit_of_product


def logit(p):
    return math.log(p / (1 - p))


class TestScores:
    @pytest.mark.parametrize('p', [0.001, 0.2, 0.5, 0.99])
    def test_of_a_probability(self, p):
        assert logit_of_probability(torch.tensor(p)).item() == pytest.approx(logit(p), abs=2e-3)
        assert logit_of_probability(torch.tensor(p).double()).dtype == torch.double

    def test_of_sure_probabilities_it_is_finite_and_has_a_gradient(self):
        p = torch.tensor([0.0, 1.0, 1e-9], requires_grad=True)
        logits = logit_of_probability(p)
        assert logits.tolist() == pytest.approx([math.log(FLOOR), -math.log(FLOOR), math.log(FLOOR)], abs=1e-2)
        logits.sum().backward()
        assert torch.isfinite(p.grad).all() and (p.grad > 1e5).all()

    @pytest.mark.parametrize('a, b', [(0.0, 0.0), (2.0, -1.0), (-5.0, 3.0), (6.0, 6.0)])
    def test_of_a_product(self, a, b):
        product = 1 / (1 + math.exp(-a)) / (1 + math.exp(-b))
        assert logit_of_product(torch.tensor(a), torch.tensor(b)).item() == pytest.approx(logit(product), rel=1e-5)
        mean = logit_of_geometric_mean(torch.tensor(a), torch.tensor(b)).item()
        assert mean == pytest.approx(logit(math.sqrt(product)), abs=1e-3)

    @pytest.mark.parametrize('combine', [logit_of_product, logit_of_geometric_mean])
    @pytest.mark.parametrize('a, b', [(60.0, 60.0), (-60.0, 60.0), (-60.0, -60.0), (200.0, 200.0)])
    def test_extremes_are_finite(self, combine, a, b):
        values = torch.tensor([a, b], requires_grad=True)
        result = combine(values[0], values[1])
        result.backward()
        assert torch.isfinite(result) and torch.isfinite(values.grad).all()
        if a == -60:
            assert values.grad.abs().max() > 0.4, 'a sure miss keeps its gradient'

    def test_of_half_precision_it_is_computed_in_float32(self):
        assert logit_of_product(torch.zeros(1).half(), torch.zeros(1).half()).dtype == torch.float32

    def test_a_factor_belongs_to_all_classes_of_its_anchor(self):
        scores, factor = torch.randn(2, 6, 3, 2), torch.randn(2, 2, 3, 2)  # two anchors of three classes
        rows = flat(combined(scores, factor, 3, geometric=False), 3).sigmoid()
        expected = flat(scores, 3).sigmoid() * flat(factor, 1).sigmoid()
        assert torch.allclose(rows, expected, atol=1e-6)


class Priors:
    strides = [(8, 8), (16, 16)]
    base_anchors = [torch.tensor([[-8.0, -16.0, 8.0, 16.0], [0.0, 0.0, 4.0, 4.0]])] * 2


def head(**attributes):
    module = nn.Module()
    module.prior_generator = Priors()
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


class Coder:
    stds, normalizer = (0.1, 0.1, 0.2, 0.2), 4.0


def error(form, raw, target, level=0):
    """Mean difference of two boxes, as the loss takes it."""
    raw, target = (form.values(torch.tensor([box]), level) for box in (raw, target))
    scales = torch.ones(1, 4) if form.scales is None else form.scales(target, level)
    return ((raw - target).abs() / scales).mean().item()


TENTH = math.log(1.1) / 2


class TestBoxes:
    """A box of 128 x 64 pixels; the other is a tenth larger."""

    @pytest.mark.parametrize(
        'form, raw, target',
        [
            (deltas(head(bbox_coder=Coder())), [0, 0, math.log(1.1) / 0.2, math.log(1.1) / 0.2], [0.0, 0, 0, 0]),
            (distances(head(), 'pixels'), [70.4, 35.2, 70.4, 35.2], [64.0, 32, 64, 32]),
            (distances(head(), 'strides'), [8.8, 4.4, 8.8, 4.4], [8.0, 4, 8, 4]),
            (
                distances(head(base_edge_list=[16, 32]), 'base lengths', True),
                [math.log(4.4), math.log(2.2), math.log(4.4), math.log(2.2)],
                [math.log(4), math.log(2), math.log(4), math.log(2)],
            ),
            (distances_of_prior(head(bbox_coder=Coder())), [1.1, 1.1, 2.2, 2.2], [1.0, 1, 2, 2]),
            (corners(None), [4.2, 4.6, 21.8, 13.4], [5.0, 5, 21, 13]),
            (centres(head()), [0.5, 0.5, math.log(17.6), math.log(8.8)], [0.5, 0.5, math.log(16), math.log(8)]),
            (centres(head(), True), [0, 0, math.log(8.8), math.log(2.2)], [0.0, 0, math.log(8), math.log(2)]),
        ],
        ids=['deltas', 'pixels', 'strides', 'base lengths', 'prior', 'corners', 'centres', 'anchors'],
    )
    def test_a_tenth_is_a_twentieth_everywhere(self, form, raw, target):
        if form.unit.startswith('centre in strides, size'):
            raw, target = [raw, raw], [target, target]  # a row for each of the anchors of a cell
            rows = [form.values(torch.tensor(box), 0) for box in (raw, target)]
            found = ((rows[0] - rows[1]).abs() / form.scales(rows[1], 0)).mean().item()
        else:
            found = error(form, raw, target)
        assert found == pytest.approx(0.049, abs=0.002)

    @pytest.mark.parametrize('unit, at', [('pixels', [8.0, 16.0]), ('strides', [1.0, 1.0])])
    def test_distances_are_in_cells_on_every_level(self, unit, at):
        form = distances(head(), unit)
        assert [form.values(torch.full((1, 4), at[level]), level).tolist() for level in (0, 1)] == [[[1.0] * 4]] * 2

    def test_a_shift_by_a_tenth_of_the_width(self):
        pixels = distances(head(), 'pixels')
        assert error(pixels, [76.8, 32, 51.2, 32], [64.0, 32, 64, 32]) == pytest.approx(0.1 / 2)
        assert error(centres(head()), [1.6, 0, math.log(16), 0], [0.0, 0, math.log(16), 0]) == pytest.approx(0.1 / 4)
        assert error(deltas(head(bbox_coder=Coder())), [1.0, 0, 0, 0], [0.0, 0, 0, 0]) == pytest.approx(0.1 / 4)

    def test_the_centre_of_yolo_v3_is_measured_in_widths_of_its_anchor(self):
        form = centres(head(), sigmoid=True)  # anchors of 2 x 4 and of 0.5 x 0.5 cells of stride 8
        values = form.values(torch.tensor([[0.0, 0, math.log(2), 0], [0.0, 0, 0, 0]]), 0)
        assert values[:, :2].tolist() == [[0.5, 0.5]] * 2
        assert form.scales(values, 0).tolist() == [pytest.approx([4, 4, 1, 1]), [1, 1, 1, 1]]

    def test_a_box_of_no_size_is_measured_in_cells(self):
        form = distances(head(), 'strides')
        assert error(form, [0.5, 0, 0, 0], [0.0, 0, 0, 0]) == pytest.approx(0.5 / 4)
