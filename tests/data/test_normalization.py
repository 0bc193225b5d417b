"""Statistics by chunks are those of the whole, also where numbers nearly cancel."""

import math

import numpy as np
import pytest
import torch

from handgrad.data.normalization import KINDS, by_columns, folded, shift_and_scale, statistics, to_length_one
from handgrad.errors import InputError


@pytest.mark.parametrize("size", [1, 3, 64, 500])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e9])
def test_statistics_do_not_depend_on_the_chunks(size, offset):
    x = torch.randn(200, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + offset
    x[:, 3] = 0.1  # constant, and not what 200 of it sum up to over 200
    found = statistics(x.split(size))
    exact = [math.fsum(column) / 200 for column in x.t().tolist()]
    assert np.allclose(found.mean, exact, rtol=1e-14)
    centred = x - torch.tensor(exact, dtype=torch.float64)
    assert np.allclose(found.deviation, centred.square().mean(0).sqrt(), rtol=1e-9, atol=2e-9)
    assert (float(found.mean[3]), float(found.deviation[3])) == (0.1, 0.0)


def test_what_is_done_is_what_is_folded():
    """Shift and scale are numbers of the features' own type, so that weights can be folded without a further error."""
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 3 + 7
    for kind in ("center", "standardize"):
        shift, scale = shift_and_scale(kind, statistics([x]), torch.float32)
        assert torch.equal(shift, shift.float().double())
        assert torch.equal(scale, scale.float().double())
        done = by_columns(shift, scale)(x)
        assert done.dtype == torch.float32
        assert torch.allclose(done.double(), (x.double() - shift) / scale, rtol=2**-23)
    assert torch.equal(x, torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 3 + 7)  # left as it is


def test_a_deviation_too_small_for_the_type_is_none():
    x = torch.tensor([[0.0], [1e-60]], dtype=torch.float64)
    assert float(shift_and_scale("standardize", statistics([x]), torch.float32)[1]) == 1
    assert float(shift_and_scale("standardize", statistics([x]), torch.float64)[1]) == 5e-61


def test_numbers_whose_difference_the_type_can_not_hold_are_refused():
    x = torch.tensor([[0.0, -3e38], [0.0, -3e38], [0.0, 3e38]])
    for kind in ("center", "standardize"):
        with pytest.raises(InputError, match=f"normalize={kind}: the numbers of column 1 are too large"):
            shift_and_scale(kind, statistics([x]), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_length_one(dtype):
    x = torch.tensor([[3, 4], [0, 0], [-1e-30, 0], [1e30, 1e30]], dtype=dtype)
    expected = torch.tensor([[0.6, 0.8], [0, 0], [-1, 0], [0.5**0.5, 0.5**0.5]], dtype=dtype)
    assert torch.allclose(to_length_one(x), expected, rtol=1e-7)


def test_each_kind_says_what_it_does():
    assert [kind for kind, told in KINDS.items() if told is None] == ["none"]


def test_folded_weights_give_the_same_logits_on_features_as_they_are():
    generator = torch.Generator().manual_seed(0)
    x, shift, scale = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (9, 1, 1))
    weight, bias = (torch.randn(2, 3, n, generator=generator, dtype=torch.float64) for n in (4, 1))
    raw, offset = folded(weight, bias[..., 0], shift[0], scale[0].abs())
    expected = by_columns(shift[0], scale[0].abs())(x) @ weight.transpose(1, 2) + bias.transpose(1, 2)
    torch.testing.assert_close(x @ raw.transpose(1, 2) + offset[:, None], expected)
    assert folded(weight.float(), bias[..., 0].float(), shift[0], scale[0].abs())[0].dtype == torch.float32
