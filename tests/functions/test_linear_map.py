"""The linear map is the plain formula, in one product or in groups of samples."""

import pytest
import torch

from handgrad.functions.linear_map import GROUP, linear_map
from tests.functions.contract import plain_logits


@pytest.mark.parametrize("samples", [1, 2 * GROUP, 2 * GROUP + 1, 4 * GROUP])
@pytest.mark.parametrize(("paths", "outputs"), [(1, 1), (4, 1), (1, 10), (5, 3), (2, 10)])
def test_is_the_plain_formula(samples, paths, outputs):
    input = torch.randn(samples, 20, dtype=torch.float64)
    weight = torch.randn(paths, outputs, 20, dtype=torch.float64)
    z = linear_map(input, weight)
    torch.testing.assert_close(z, plain_logits(input, weight).transpose(1, 2), rtol=1e-13, atol=1e-13)
    assert z.is_contiguous()
