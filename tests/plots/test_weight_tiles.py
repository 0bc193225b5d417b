"""The picture of the weights: where each tile stands, what its colours mean."""

import torch

from handgrad.plots.weight_tiles import weight_image


def test_colours_and_places():
    weight = torch.zeros(2, 3, 4)
    weight[0, 1, 0], weight[0, 2, 3] = 5, -2.5  # row 0: full red in tile 1, half blue in tile 2
    weight[1, 0, 1] = 1e-3  # row 1 has a scale of its own
    picture = weight_image(weight, scale=1, gap=1)
    assert picture.shape == (2 * 4, 3 * 4, 3)
    assert picture[1, 5].tolist() == [178, 24, 43]
    assert picture[2, 10].tolist() == [140, 175, 210]  # half way from white's 247 to blue's 33, 102, 172
    assert picture[5, 2].tolist() == [178, 24, 43]
    assert picture[1, 1].tolist() == [247, 247, 247]
    assert picture[0, 0].tolist() == [255, 255, 255], "the gap"


def test_all_zero_weights_are_white():
    assert (weight_image(torch.zeros(1, 1, 4), gap=0) == 247).all()
