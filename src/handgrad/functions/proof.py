"""What the derivations claim, beside what plain formulas and finite differences say: numbers that must agree."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from handgrad.functions.l2_penalty import l2_penalty
from handgrad.functions.objective import Loss, Objective

CLASSIFIERS, SAMPLES = 2, 32  # at which the Functions are tried by themselves: enough to see them mix
FORMULA, DIFFERENCES = "its formula", "finite differences"


class Term(NamedTuple):
    """Numbers as the code has them, and as they must be.

    Attributes:
        subject, part: what they are, in words that are read one after the other.
        source: what ``expected`` is from, in words.
        found, expected: of one shape.
    """

    subject: str
    part: str
    source: str
    found: Tensor
    expected: Tensor

    def relative_error(self) -> float:
        """Returns the norm of the error relative to that of ``expected``; NaN where a number is not finite."""
        error, size = (torch.linalg.vector_norm(x).item() for x in (self.found - self.expected, self.expected))
        return error / max(size, 1e-300)


def terms(objective: Objective, outputs: int, input: Tensor, target: Tensor, directions: int) -> list[Term]:
    """Compares each Function by itself at a few samples, then the objective that is made of them at all; in float64.

    The point is random, since at the start, where the weights are zero, a missing L2 gradient would not show. An error
    in any entry of a gradient shows along a random direction. Weights are drawn for logits of about 1.

    Args:
        objective: of L classifiers, ``l2`` in float64.
        outputs: K.
        input: (N, D), of any floating dtype.
        target: (N,).
        directions: number of directions along which the objective is differentiated.
    """
    input, generator = input.double(), torch.Generator().manual_seed(0)
    few, few_targets = input[:SAMPLES], target[:SAMPLES]
    features, paths = input.shape[1], len(objective.l2)
    size = torch.linalg.vector_norm(input).item() / input.numel() ** 0.5 or 1.0  # of a feature

    def normal(*shape: int) -> Tensor:
        """Drawn in float32, which takes a fifth of the time."""
        return torch.randn(shape, generator=generator).to(input.device).double()

    def parameters(classifiers: int) -> tuple[Tensor, Tensor]:
        return normal(classifiers, outputs, features) / (size * features**0.5), normal(classifiers, outputs)

    point, others = parameters(CLASSIFIERS), parameters(CLASSIFIERS)
    input_direction = size * normal(len(few), 1) * normal(features)  # of rank one: 32 + 784 numbers, not 25,088
    return [
        *loss_terms(objective.loss, (few, *point), (input_direction, *others), few_targets, normal),
        *penalty_terms(point[0], others[0], normal),
        *objective_terms(objective, input, target, [parameters(paths) for _ in range(1 + directions)]),
    ]


def loss_terms(
    loss: Loss, arguments: Sequence[Tensor], directions: Sequence[Tensor], target: Tensor, normal: Callable[..., Tensor]
) -> Iterator[Term]:
    """Compares a loss and its logits with the plain formula, and its backward with differences.

    Args:
        loss: of ``linear_cross_entropy``'s kind.
        arguments, directions: input (N, D), weight (L, K, D) and bias (L, K), and one direction for each.
        target: (N,).
        normal: draws a tensor of the shape given.
    """
    name = getattr(loss.function, "__name__", "the loss")
    z = plain_logits(*arguments)
    found, logits = loss.function(*arguments[:2], target, arguments[2])
    yield Term("value of", name, FORMULA, found, loss.plain(z, target).mean(1))
    yield Term("value of the logits of", name, FORMULA, logits, z.transpose(1, 2))
    # Divided by N, what arrives for the logits weighs as much as what arrives for their mean loss.
    g, also_g = normal(*found.shape), normal(*found.shape)
    G, also_G = normal(*logits.shape) / len(target), normal(*logits.shape) / len(target)

    def scalars(input: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
        """Gradients arrive for the loss, as in training, for the logits, for both: backward tells these apart."""
        found, logits = loss.function(input, weight, target, bias)
        return [(g * found).sum(), (G * logits).sum(), (also_g * found).sum() + (also_G * logits).sum()]

    yield from gradient_terms(name, scalars, dict(zip(("input", "weight", "bias"), arguments, strict=True)), directions)


def penalty_terms(parameter: Tensor, direction: Tensor, normal: Callable[..., Tensor]) -> Iterator[Term]:
    """Compares the penalty of ``parameter (L, K, D)`` with the plain formula, and its backward with differences."""
    l2, *grad_outputs = (normal(len(parameter)) for _ in range(4))
    expected = l2 * plain_square_norm(parameter) / 2
    yield Term("value of", "l2_penalty", FORMULA, l2_penalty(parameter, l2), expected)

    def scalars(parameter: Tensor, l2: Tensor) -> list[Tensor]:
        penalty = l2_penalty(parameter, l2)
        return [(g * penalty).sum() for g in grad_outputs]

    yield from gradient_terms("l2_penalty", scalars, {"parameter": parameter, "l2": l2}, (direction, normal(len(l2))))


def gradient_terms(
    name: str,
    scalars: Callable[..., list[Tensor]],
    arguments: Mapping[str, Tensor],
    directions: Sequence[Tensor],
) -> Iterator[Term]:
    """Compares what a Function's backward gives with differences, each argument by itself.

    Args:
        name: the Function's.
        scalars: what is made of its outputs; each is differentiated by a pass of its own.
        arguments: by their names.
        directions: one for each argument.
    """
    with torch.enable_grad():
        leaves = [tensor.clone().requires_grad_() for tensor in arguments.values()]
        passes = scalars(*leaves)
        # A gradient that is missing is one of zeros.
        gradients = [torch.autograd.grad(x, leaves, retain_graph=True, materialize_grads=True) for x in passes]
    for i, (argument, direction) in enumerate(zip(arguments, directions, strict=True)):
        derived = torch.stack([torch.vdot(gradient[i].flatten(), direction.flatten()) for gradient in gradients])

        def moved(tensor: Tensor, argument: str = argument) -> Tensor:
            return torch.stack(scalars(**{**arguments, argument: tensor}))

        with torch.no_grad():
            numeric = central_difference(moved, [arguments[argument]], [direction])
        yield Term(f"derived gradient of {name} for", argument, DIFFERENCES, derived, numeric)


def objective_terms(
    objective: Objective, input: Tensor, target: Tensor, draws: Sequence[tuple[Tensor, Tensor]]
) -> Iterator[Term]:
    """Compares what trains, the very calls ``value`` and ``gradient``, for each classifier.

    Args:
        draws: weight (L, K, D) and bias (L, K), and then directions of theirs.
    """
    point, *directions = draws
    value = partial(objective.value, input=input, target=target)
    loss, *gradients = objective.gradient(*point, input, target)
    derived = [
        torch.stack([(g * v).flatten(1).sum(1) for g, v in zip(gradients, along, strict=True)]).sum(0)
        for along in directions
    ]
    numeric = [central_difference(value, point, along) for along in directions]
    plain_loss, plain_value = plain_objective(objective, *point, input, target)
    pairs = [
        ("value of the objective at", FORMULA, value(*point), plain_value),
        ("loss of the objective's gradient at", FORMULA, loss, plain_loss),
        ("derived gradient of the objective at", DIFFERENCES, torch.stack(derived, 1), torch.stack(numeric, 1)),
    ]
    for subject, source, found, expected in pairs:
        for l2, *pair in zip(objective.l2.tolist(), found, expected, strict=True):
            yield Term(subject, f"l2={l2:g}", source, *pair)


def plain_logits(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Returns ``z[l, k, n] = sum_i weight[l, k, i] input[n, i] + bias[l, k]``, (L, K, N)."""
    return weight @ input.t() + bias.unsqueeze(2)


def plain_square_norm(parameter: Tensor) -> Tensor:
    """Returns the sum of squares, (L,), of ``parameter (L, *)``."""
    return parameter.square().flatten(1).sum(1)


def plain_objective(
    objective: Objective, weight: Tensor, bias: Tensor, input: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns C and J, each (L,), by the formulas of ``Objective``, written without the Functions."""
    loss = objective.loss.plain(plain_logits(input, weight, bias), target).mean(1)
    squares = plain_square_norm(weight) + (plain_square_norm(bias) if objective.penalize_bias else 0)
    return loss, loss + objective.l2 / 2 * squares


def central_difference(
    value: Callable[..., Tensor], point: Sequence[Tensor], direction: Sequence[Tensor], step: float = 1e-3
) -> Tensor:
    """Returns the 5-point central difference of ``value`` at ``point`` along ``direction``; its error is O(step^4)."""

    def at(t: float) -> Tensor:
        return value(*(torch.add(p, v, alpha=t * step) for p, v in zip(point, direction, strict=True)))

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
