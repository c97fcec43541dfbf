"""Heat maps of features."""

import numpy as np
import pytest
import torch

from mmrkd.visualization import draw_feature_maps, energy


def test_energy_is_the_mean_of_squares():
    feature = torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]])
    assert energy(feature).tolist() == [[5.0, 2.0]]


def columns(picture, count):
    return np.array_split(picture.astype(float), count, axis=1)


def test_what_is_strong_is_bright_and_all_maps_of_a_row_have_one_scale():
    image = np.zeros((32, 32, 3), np.uint8)
    strong = torch.zeros(2, 4, 4)
    strong[:, 1:3, 1:3] = 2.0
    picture = draw_feature_maps(image, {'strong': [strong], 'weak': [0.1 * strong], 'none': [0 * strong]})
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    plain, *maps = (part[40:].max() for part in columns(picture, 4))
    first, second, third = (np.sort(part[60:140].mean(axis=2).ravel()) for part in columns(picture, 4)[1:])
    assert np.median(first[first < 250]) >= np.median(second[second < 250])
    assert first[first < 250].max() > second[second < 250].max() + 50
    assert second[second < 250].max() >= third[third < 250].max()


@pytest.mark.parametrize('levels', [1, 3])
def test_a_row_for_each_level(levels):
    image = np.full((16, 16, 3), 128, np.uint8)
    maps = {'a': [torch.rand(3, 4, 4)] * levels, 'b': [torch.rand(5, 4, 4)] * levels}
    assert draw_feature_maps(image, maps).shape[0] == pytest.approx(200 * levels, abs=2)
