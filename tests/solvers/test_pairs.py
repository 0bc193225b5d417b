"""The compact form of L-BFGS does what the two loops do, at any l2."""

import pytest
import torch

from handgrad.solvers.pairs import SCALES, Pairs

SIZE, P = 5, 12


def quadratic(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(P, P, generator=generator, dtype=torch.float64)
    return root @ root.t() / P + torch.eye(P, dtype=torch.float64), generator


def filled(pairs: Pairs, count: int, seed: int = 0):
    H, generator = quadratic(seed)
    steps = [torch.randn(P, generator=generator, dtype=torch.float64) for _ in range(count)]
    for step in steps:
        pairs.add(step, H @ step + pairs.l2 * pairs.penalized * step)
    return H, steps[-pairs.size :]


def two_loops(steps, changes, gradient, precondition):
    q, a = gradient.clone(), []
    for s, y in zip(reversed(steps), reversed(changes), strict=True):
        a.append((s @ q) / (s @ y))
        q -= a[-1] * y
    s, y = steps[-1], changes[-1]
    r = ((s @ y) / (y @ precondition(y))).clamp(*SCALES) * precondition(q)
    for s, y, alpha in zip(steps, changes, reversed(a), strict=True):
        r += s * (alpha - (y @ r) / (s @ y))
    return r


@pytest.mark.parametrize("count", [1, 3, SIZE, SIZE + 1, 3 * SIZE + 2])
@pytest.mark.parametrize("l2", [0.0, 0.7])
def test_it_is_the_two_loops(count, l2):
    penalized = (torch.arange(P) % 3 != 0).double()
    pairs = Pairs(SIZE, penalized)
    pairs.begin(0.2)
    H, steps = filled(pairs, count)
    pairs.begin(l2)
    changes = [H @ step + l2 * penalized * step for step in steps]
    torch.testing.assert_close(pairs.S, torch.stack(steps))
    torch.testing.assert_close(pairs.Y, torch.stack(changes))
    gradient = torch.randn(P, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    expected = two_loops(steps, changes, gradient, lambda x: x / 2)
    torch.testing.assert_close(pairs.direction(gradient, lambda x: x / 2), expected, rtol=1e-10, atol=1e-12)


def test_without_pairs_it_is_the_preconditioner():
    pairs = Pairs(SIZE, torch.ones(P, dtype=torch.float64))
    pairs.begin(1.0)
    gradient = torch.arange(P, dtype=torch.float64)
    assert torch.equal(pairs.direction(gradient, lambda x: 3 * x), 3 * gradient)


def test_pairs_along_which_the_gradient_falls_are_left_out():
    pairs = Pairs(SIZE, torch.ones(P, dtype=torch.float64))
    pairs.begin(2.0)
    one = torch.ones(P, dtype=torch.float64)
    pairs.add(one, 1.5 * one)  # by 2 s less than that without a penalty
    pairs.add(2 * one, 6 * one)
    pairs.begin(0.1)
    assert pairs.S.tolist() == [(2 * one).tolist()]


def test_loaded_pairs_are_those_that_were_saved():
    pairs, twin = (Pairs(SIZE, torch.ones(P, dtype=torch.float64)) for _ in range(2))
    pairs.begin(0.3)
    filled(pairs, 9)
    twin.load(pairs.S.clone(), pairs.Y.clone(), pairs.l2)
    for each in (pairs, twin):
        each.begin(0.1)
    assert torch.equal(pairs.SY, twin.SY)
