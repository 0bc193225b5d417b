"""What a sample counts."""

import pytest
import torch

from handgrad.functions.samples import at_least_float32, sample_shares


def test_shares_add_up_to_one():
    assert sample_shares(torch.tensor([3.0, 0.0, 1.0], dtype=torch.float64)).tolist() == [0.75, 0.0, 0.25]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_shares_are_at_least_float32(dtype):
    shares = sample_shares(torch.full((8,), 6e4, dtype=dtype))
    assert shares.tolist() == [0.125] * 8
    assert shares.dtype == at_least_float32(shares) == torch.promote_types(dtype, torch.float32)
