"""What the derivations claim, beside what plain formulas and finite differences say: numbers that must agree."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from handgrad.functions.l2_penalty import l2_penalty
from handgrad.functions.objective import DataTerm, Loss, Objective

CLASSIFIERS, SAMPLES = 2, 32  # at which the Functions are tried by themselves: enough to see them mix
STEP = 1e-3  # of differences, where logits of about 1 move by about 1
FORMULA, DIFFERENCES, AUTOGRAD = "its formula", "finite differences", "autograd of its formula"


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


def terms(
    objective: Objective,
    outputs: int,
    input: Tensor,
    target: Tensor,
    directions: int,
    share: float | None = None,
    hessian: bool = False,
) -> Iterator[Term]:
    """Compares each Function by itself at a few samples, then the objective that is made of them at all; in float64.

    The point is random, since at the start, where the weights are zero, a missing L2 gradient would not show. An error
    in any entry of a gradient shows along a random direction. Weights are drawn for logits of about 1.

    Of an objective over several processes all of them call this, each with its own samples: at the same point, for the
    same terms of the objective, and to the last of them.

    Args:
        objective: of L classifiers, ``l2`` in float64.
        outputs: K.
        input: (N, D), of any floating dtype.
        target: (N,).
        directions: number of directions along which the objective is differentiated.
        share: what training tells ``objective.gradient`` of the samples' share in those of all processes.
        hessian: whether to compare the Hessian-vector product and the data term too, for solvers that use them.
    """
    input, generator = input.double(), torch.Generator().manual_seed(0)
    few, few_targets = input[:SAMPLES], target[:SAMPLES]
    features, paths = input.shape[1], len(objective.l2)
    size = (
        mean_over_all(torch.linalg.vector_norm(input).square().reshape(1), input.numel(), objective).sqrt().item()
        or 1.0
    )  # of a feature

    def normal(*shape: int) -> Tensor:
        """Drawn in float32, which takes a fifth of the time."""
        return torch.randn(shape, generator=generator).to(input.device).double()

    def parameters(classifiers: int) -> tuple[Tensor, Tensor]:
        return normal(classifiers, outputs, features) / (size * features**0.5), normal(classifiers, outputs)

    # First what all processes draw alike, however many samples each has.
    draws, active = [parameters(paths) for _ in range(1 + directions)], normal(paths)
    point, others = parameters(CLASSIFIERS), parameters(CLASSIFIERS)
    # Of rank one: 32 + 784 numbers, not 25,088. Signs move no sample's logits much further than the others'.
    input_direction = size * normal(len(few), 1).sign() * normal(features)
    gradient = partial(objective.gradient, input=input, target=target, share=share)
    yield from loss_terms(objective.loss, (few, *point), (input_direction, *others), few_targets, normal)
    yield from weighted_loss_terms(objective.loss, (few, *point), few_targets, normal)
    yield from penalty_terms(point[0], others[0], normal)
    yield from objective_terms(objective, gradient, input, target, draws, active)
    if hessian:
        yield from hessian_terms(objective, gradient, input, *draws[:2])
    if hessian and objective.loss.residual:
        yield from data_terms(objective, gradient, input, target, draws[0])


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
    losses = loss.plain(z, target)
    found, logits = loss.function(*arguments[:2], target, arguments[2])
    yield Term("value of", name, FORMULA, found, losses.mean(1))
    yield Term("value of the logits of", name, FORMULA, logits, z.transpose(1, 2))
    # Divided by N, what arrives for the logits weighs as much as what arrives for their mean loss.
    g, also_g = normal(2, *found.shape)
    G, also_G = normal(2, *logits.shape) / len(target)

    def scalars(input: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
        """Gradients arrive for the loss, as in training, for the logits, for both: backward tells these apart."""
        found, logits = loss.function(input, weight, target, bias)
        return [(g * found).sum(), (G * logits).sum(), (also_g * found).sum() + (also_G * logits).sum()]

    yield from gradient_terms(name, scalars, dict(zip(("input", "weight", "bias"), arguments, strict=True)), directions)


def weighted_loss_terms(
    loss: Loss, arguments: Sequence[Tensor], target: Tensor, normal: Callable[..., Tensor]
) -> Iterator[Term]:
    """Compares a loss with sample weights, and its backward, with the plain formula and what autograd makes of it."""
    name = getattr(loss.function, "__name__", "the loss")
    s = normal(len(target)).exp()
    with torch.enable_grad():
        input, weight, bias = leaves = [tensor.clone().requires_grad_() for tensor in arguments]
        found, _ = loss.function(input, weight, target, bias, s)
        expected = (s * loss.plain(plain_logits(*leaves), target)).sum(1) / s.sum()
    yield Term("value with sample weights of", name, FORMULA, found.detach(), expected.detach())
    g = normal(*found.shape)
    pairs = (torch.autograd.grad(value, leaves, g, materialize_grads=True) for value in (found, expected))
    for argument, *pair in zip(("input", "weight", "bias"), *pairs, strict=True):
        yield Term(f"derived gradient with sample weights of {name} for", argument, AUTOGRAD, *pair)


def penalty_terms(parameter: Tensor, direction: Tensor, normal: Callable[..., Tensor]) -> Iterator[Term]:
    """Compares the penalty of ``parameter (L, K, D)`` with the plain formula, and its backward with differences."""
    l2, *grad_outputs = normal(3, len(parameter))
    expected = l2 * plain_square_norm(parameter) / 2
    yield Term("value of", "l2_penalty", FORMULA, l2_penalty(parameter, l2), expected)

    def scalars(parameter: Tensor, l2: Tensor) -> list[Tensor]:
        penalty = l2_penalty(parameter, l2)
        return [(g * penalty).sum() for g in grad_outputs]

    arguments, directions = {"parameter": parameter, "l2": l2}, (direction, normal(len(l2)))
    # Differences of what is quadratic are exact over any step, and a long one loses no digits.
    yield from gradient_terms("l2_penalty", scalars, arguments, directions, step=1.0)


def gradient_terms(
    name: str,
    scalars: Callable[..., list[Tensor]],
    arguments: Mapping[str, Tensor],
    directions: Sequence[Tensor],
    step: float = STEP,
) -> Iterator[Term]:
    """Compares what a Function's backward gives with differences, each argument by itself.

    Args:
        name: the Function's.
        scalars: what is made of its outputs; each is differentiated by a pass of its own.
        arguments: by their names.
        directions: one for each argument.
        step: of the differences.
    """
    derived = slopes(scalars, list(arguments.values()), directions)
    for name_of, along, slope in zip(arguments, directions, derived, strict=True):

        def moved(tensor: Tensor, name_of: str = name_of) -> list[Tensor]:
            return scalars(**{**arguments, name_of: tensor})

        numeric = differences(moved, [arguments[name_of]], [along], step)
        yield Term(f"derived gradient of {name} for", name_of, DIFFERENCES, slope, numeric)


def slopes(
    scalars: Callable[..., list[Tensor]], arguments: Sequence[Tensor], directions: Sequence[Tensor]
) -> list[Tensor]:
    """Returns, for each argument, what backward gives of each scalar along the argument's direction, (scalars,)."""
    with torch.enable_grad():
        leaves = [tensor.clone().requires_grad_() for tensor in arguments]
        passes = scalars(*leaves)
        # A gradient that is missing is one of zeros.
        gradients = [torch.autograd.grad(x, leaves, retain_graph=True, materialize_grads=True) for x in passes]
    return [
        torch.stack([torch.vdot(of.flatten(), along.flatten()) for of in of_argument])
        for of_argument, along in zip(zip(*gradients, strict=True), directions, strict=True)
    ]


def differences(
    scalars: Callable[..., list[Tensor]],
    arguments: Sequence[Tensor],
    directions: Sequence[Tensor],
    step: float = STEP,
) -> Tensor:
    """Returns what differences give of each scalar, all arguments moved along their directions, (scalars,)."""
    with torch.no_grad():
        return central_difference(lambda *moved: torch.stack(scalars(*moved)), arguments, directions, step)


def objective_terms(
    objective: Objective,
    gradient: Callable[..., tuple[Tensor, Tensor, Tensor]],
    input: Tensor,
    target: Tensor,
    draws: Sequence[tuple[Tensor, Tensor]],
    active: Tensor,
) -> Iterator[Term]:
    """Compares what trains, the very calls ``value`` and ``gradient``, for each classifier.

    Args:
        gradient: ``objective.gradient`` at these samples, as training calls it.
        draws: weight (L, K, D) and bias (L, K), and then directions of theirs.
        active: (L,), what arrives for J.
    """
    point, *directions = draws
    value = partial(objective.value, input=input, target=target)
    loss, *gradients = gradient(*point, active=active)
    derived = [
        torch.stack([(g * v).flatten(1).sum(1) for g, v in zip(gradients, along, strict=True)]).sum(0)
        for along in directions
    ]
    numeric = [active * central_difference(value, point, along) for along in directions]
    plain_loss, plain_value = plain_objective(objective, *point, input, target)
    pairs = [
        ("value of the objective at", FORMULA, value(*point), plain_value),
        ("loss of the objective's gradient at", FORMULA, loss, plain_loss),
        ("derived gradient of the objective at", DIFFERENCES, torch.stack(derived, 1), torch.stack(numeric, 1)),
    ]
    yield from terms_by_l2(objective, pairs)


def hessian_terms(
    objective: Objective,
    gradient: Callable[..., tuple[Tensor, Tensor, Tensor]],
    input: Tensor,
    point: tuple[Tensor, Tensor],
    direction: tuple[Tensor, Tensor],
) -> Iterator[Term]:
    """Compares the Hessian-vector product along a direction with differences of ``gradient``, for each classifier."""

    def flat(weight: Tensor, bias: Tensor) -> Tensor:
        return torch.cat((weight.flatten(1), bias), 1)

    derived = flat(*objective.hessian_vector_product(*point, *direction, input))
    numeric = central_difference(lambda *at: flat(*gradient(*at)[1:]), point, direction)
    yield from terms_by_l2(objective, [("Hessian-vector product of the objective at", DIFFERENCES, derived, numeric)])


def data_terms(
    objective: Objective,
    gradient: Callable[..., tuple[Tensor, Tensor, Tensor]],
    input: Tensor,
    target: Tensor,
    point: tuple[Tensor, Tensor],
) -> Iterator[Term]:
    """Compares ``data_term`` with the formula, and its gradient and the penalty's with what ``gradient`` gives."""
    found, l2 = data_term_there(objective, *point, input, target), objective.l2
    weight, bias = point
    dbias = found.dbias + (l2[:, None] * bias if objective.penalize_bias else 0)
    derived = torch.cat(((found.dweight + l2[:, None, None] * weight).flatten(1), dbias), 1)
    _, dweight, dbias = gradient(*point)
    proven = torch.cat((dweight.flatten(1), dbias), 1)
    loss, _ = plain_objective(objective, *point, input, target)
    pairs = [
        ("data term of the objective at", FORMULA, found.loss, loss),
        ("data term's gradient of the objective at", "the gradient that training takes", derived, proven),
    ]
    yield from terms_by_l2(objective, pairs)


def data_term_there(objective: Objective, weight: Tensor, bias: Tensor, input: Tensor, target: Tensor) -> DataTerm:
    """Returns ``Objective.data_term`` where the samples lie, as all that it is compared with."""
    return DataTerm(*(term.to(input.device) for term in objective.data_term(weight, bias, input, target)))


def terms_by_l2(objective: Objective, pairs: Iterable[tuple[str, str, Tensor, Tensor]]) -> Iterator[Term]:
    """Yields a term for each classifier of ``subject, source, found (L, *), expected (L, *)``."""
    for subject, source, found, expected in pairs:
        for l2, *pair in zip(objective.l2.tolist(), found, expected, strict=True):
            yield Term(subject, f"l2={l2:g}", source, *pair)


def mean_over_all(sums: Tensor, count: int, objective: Objective) -> Tensor:
    """Returns sums over this process's samples, each a number, as means over those of all processes of an objective."""
    sums = torch.cat((sums, sums.new_full((1,), count)))
    sums = sums if objective.total is None else objective.total(sums)
    return sums[:-1] / sums[-1]


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
    losses = objective.loss.plain(plain_logits(input, weight, bias), target)
    loss = mean_over_all(losses.sum(1), len(target), objective)
    squares = plain_square_norm(weight) + (plain_square_norm(bias) if objective.penalize_bias else 0)
    return loss, loss + objective.l2 / 2 * squares


def central_difference(
    value: Callable[..., Tensor], point: Sequence[Tensor], direction: Sequence[Tensor], step: float = STEP
) -> Tensor:
    """Returns the 5-point central difference of ``value`` at ``point`` along ``direction``; its error is O(step^4)."""

    def at(t: float) -> Tensor:
        return value(*(torch.add(p, v, alpha=t * step) for p, v in zip(point, direction, strict=True)))

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
