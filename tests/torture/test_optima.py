"""A thousand random problems: no gap is below the true one, and converged is never said wrongly."""

import pytest

from handgrad.solvers.exact import Exact
from tests.solvers.optima import check_bound, drawn


@pytest.mark.torture
@pytest.mark.parametrize("first", range(0, 1000, 50))
def test_the_gap_is_never_below_the_true_one(first):
    for seed in range(first, first + 50):
        check_bound(drawn(seed), Exact(tolerance=1e-6, max_iterations=1000))
