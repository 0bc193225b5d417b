"""How far parameters can be from the optimum at most: the duality gap, in closed form."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from handgrad.functions.objective import Objective
from handgrad.solvers.centred import CentredProblem, Point

ROUNDING = 1e-15  # of a mean of losses in float64: less than that is not known of any J
LARGEST_BEND = 0.5  # eigenvalue of diag(p) - p p' at most
BIAS_STEPS, SMALL_PART = 6, 0.01  # for a bias that is to be feasible, and the share of the bound that it may have


@dataclass(frozen=True)
class Certificate:
    r"""A bound on ``J(T) - min J`` by weak duality, for a point that was evaluated in float64.

    The loss of a sample is ``max_q q.z + H(q) - z[y]`` over distributions q, with the entropy H; its maximum is taken
    at q = p. Hence, with ``G(q) = mean (q - y) x'`` on centred features, every choice of q_n with ``mean q = mean y``
    (else a free bias would lead the minimum to minus infinity) gives a lower bound of all of J::

        min J >= mean H(q) - |G(q)|^2 / (2 l2)

    p itself is such a choice up to r = mean(p - y). Mixed with one distribution v for all samples, ``q = (1 - t) p + t
    v``, it is one exactly, with ``t = max(r / mean p)`` and v the rest. The entropy is concave, so that of q is at
    least 1 - t times that of p, and since the features are centred, ``G(q) = G - t M`` with M = mean p x'. With
    ``C - mean H(p) = <G, W> + r.c`` all of it comes to terms that are small by themselves, where a primal minus a dual
    value would cancel::

        J - min J <= |G + l2 W|^2 / (2 l2) + r.c + t mean H(p) + (t^2 |M|^2 - 2 t <G, M>) / (2 l2)

    Sigmoids are such a bound each, and all terms but t mean H(p) are sums over them: see docs/solver.md.

    Before it is mixed p is moved by what a step of the bias does to it, which makes the part that is due to r of second
    order, see ``bias_part`` and docs/solver.md. ``ROUNDING`` is added for what sums in float64 leave open. With a
    penalized bias nothing has to be feasible, and the first term is all, the bias among the weights.

    Source: weak duality as in Yu, Huang and Lin, Dual coordinate descent methods for logistic regression and maximum
    entropy models, Machine Learning 85 (2011); the treatment of the free bias is derived here and in docs/solver.md.

    Attributes:
        objective: J.
        gap: the bound, relative to J; at most 1, since no J is below 0; NaN where l2 = 0, which has none.
        gradient_norm: of dJ/dT.
    """

    objective: float
    gap: float
    gradient_norm: float


def certificate(problem: CentredProblem, point: Point, l2: float) -> Certificate:
    """Returns the certificate of a point."""
    objective, gradient = problem.value(point, l2), problem.gradient(point, l2)
    norm = gradient.norm().item()
    if l2 == 0:
        return Certificate(objective, float("nan"), norm)
    weights = weight_part(problem, gradient, l2)
    bound = max(weights + bias_part(problem, point, l2, enough=weights), 0.0) + ROUNDING
    return Certificate(objective, min(bound / objective, 1.0), norm)


def certified_weights(
    objective: Objective,
    weight: Tensor,
    bias: Tensor,
    input: Any,
    target: Tensor,
    sample_weight: Tensor | None = None,
) -> list[Certificate]:
    """Returns a certificate for each of L classifiers, wherever their weights are from.

    The bias of weights that are not optimal is far from feasible. A few steps of Newton's lead to b*, the best one for
    these weights, and J there has the bound: ``J(W, b) - min J <= J(W, b) - J(W, b*) + the bound at b*``.

    Args:
        weight, bias: (L, K, D) and (L, K); input (N, D), target (N,), sample_weight (N,) or None.
    """
    problem = CentredProblem(objective, input, target, sample_weight, bias.shape[1])
    return [
        certificate_at_best_bias(problem, problem.centred(*parameters), l2)
        for l2, *parameters in zip(objective.l2.tolist(), weight, bias, strict=True)
    ]


def certificate_at_best_bias(problem: CentredProblem, parameters: Tensor, l2: float) -> Certificate:
    """Returns the certificate of parameters (K, D + 1) by way of the best bias for their weights."""
    steps = bool(l2) and problem.free
    point = here = problem.at(parameters, coupling=steps)
    if steps:
        for _ in range(BIAS_STEPS):
            weights = weight_part(problem, problem.gradient(point, l2), l2)
            if bias_part(problem, point, l2) <= max(SMALL_PART * weights, 1e-12 * point.loss):
                break
            further = problem.at(point.with_bias_step(), coupling=True)
            if not further.loss < point.loss:
                break
            point = further
    found, proof = certificate(problem, here, l2), certificate(problem, point, l2)
    gap = proof.gap * proof.objective + found.objective - proof.objective
    return replace(found, gap=min(gap / found.objective, found.gap) if l2 else found.gap)


def weight_part(problem: CentredProblem, gradient: Tensor, l2: float) -> float:
    """Returns ``|G + l2 W|^2 / (2 l2)`` for J's gradient, with the bias among the weights where it is penalized."""
    return (gradient * problem.penalized).square().sum().item() / (2 * l2)


def bias_part(problem: CentredProblem, point: Point, l2: float, enough: float = -math.inf) -> float:
    """Returns what of the bound is due to r, the gradient for a free bias: the smaller one with and without a step.

    Args:
        enough: up to that the one without a step is not asked for.
    """
    if not problem.free:
        return 0.0
    part = math.inf
    if point.coupling is not None and (step := small_step(point.step_of_few, problem.sigmoids)).any():
        moved = point.moved(step)
        part = part_after(moved, (moved @ step).item(), problem, point, l2)
    if part <= enough:
        return part
    nothing = torch.zeros_like(point.gradient[:, -1])
    return min(part_after(nothing, 0.0, problem, point, l2), part)


def part_after(moved: Tensor, divergence: float, problem: CentredProblem, point: Point, l2: float) -> float:
    """Returns ``bias_part`` for p after a step that moves its mean by ``moved`` (K,) for that much of the entropy."""
    weight, c = point.parameters[:, :-1], point.parameters[:, -1]
    G, left = point.gradient[:, :-1], point.gradient[:, -1] + moved
    shares = mixed(left, problem.class_shares + left, problem.sigmoids)
    t = shares.max().item()  # of several the largest, where it counts little
    if not t < 1:
        return math.inf
    e = drift(divergence, problem, point)
    squares = 2 * e * (G + l2 * weight).norm().item() + e**2
    if t:
        M = G + problem.class_sums
        G_norm, M_norm = G.norm().item(), M.norm().item()
        mixed_away = (shares * (G * M).sum(1)).sum().item()
        squares += t**2 * (M_norm + e) ** 2 + 2 * t * e * (G_norm + M_norm) - 2 * mixed_away
    entropy = point.loss - (G * weight).sum().item() + e * weight.norm().item() - (left @ c).item()
    return (left @ c).item() + divergence + t * entropy + squares / (2 * l2)


def drift(divergence: float, problem: CentredProblem, point: Point) -> float:
    """Returns the norm of what G moves by at most where p moves for that much of the entropy."""
    spread = problem.spread if point.spread is None else point.spread
    return math.sqrt(LARGEST_BEND * divergence * spread) if divergence else 0.0


def small_step(step: Tensor, sigmoids: bool) -> Tensor:
    """Returns a step (K,) of the bias, cut so that it moves outputs apart by 1 at most, or a sigmoid by itself.

    Of a softmax, which a shift of all does not change, what is further than 1/2 from a number near the median is cut;
    where all fit, nothing is.
    """
    if sigmoids:
        return step.clamp(-1, 1)
    ends = torch.stack((step.min() + 0.5, step.max() - 0.5)).sort().values
    return (step - step.median().clamp(*ends)).clamp(-0.5, 0.5)


def mixed(r: Tensor, mean: Tensor, sigmoids: bool) -> Tensor:
    """Returns t, the share of one distribution for all samples, which takes the last r from a mean (K,) of q.

    Softmax has one share, (); each sigmoid has a distribution, and a share, of its own: (K,).
    """
    if sigmoids:
        return torch.maximum(r / mean, -r / (1 - mean)).clamp_min(0)
    return (r / mean).max().clamp_min(0)
