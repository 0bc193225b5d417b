"""The mistakes that are made in derivations, each by the numbers that it gives: what is wrong is named by comparing."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from handgrad.functions.objective import Loss, targets_by_output

MATCH = 1e-9  # largest relative difference of numbers that are the same
ROUNDING = 1e-13  # of a difference, relative to what is subtracted
AT_MOST = 3  # names that are told of the same numbers

Guess = tuple[str, Tensor]  # a mistake, and what it would give
Guesses = Callable[[], Iterable[Guess]]


class Sizes(NamedTuple):
    """What sums run over, and what they may wrongly be divided by."""

    samples: int
    outputs: int
    classifiers: int


def explained(found: Tensor, expected: Tensor, sizes: Sizes, guesses: Guesses, axes: Sequence[str]) -> str:
    """Returns what is wrong with numbers that are not as expected: a mistake by its name, or that none is known.

    Args:
        found, expected: of one shape.
        guesses: returns mistakes that these numbers may be of, each up to a factor that has a name.
        axes: what an index of each axis counts.
    """
    if bad := int((~found.isfinite()).sum()):
        return f"not a number in {bad} of {found.numel()}"
    return named(found, expected, sizes, guesses, axes) or somewhere(found, expected, sizes, axes)


def named(
    found: Tensor,
    expected: Tensor,
    sizes: Sizes,
    guesses: Guesses = tuple,
    axes: Sequence[str] = (),
    noise: float = 0.0,
) -> str | None:
    """Returns the mistakes that give ``found``, joined by "or" where several do; None where none does that is known.

    Args:
        noise: the norm of what may be rounding in ``found``.
    """
    one, two = [], []  # mistakes: one of them alone is likelier
    if norm(expected) > 0:
        if norm(found) <= max(MATCH * norm(expected), noise):
            return "zero"
        factor = factor_between(found, expected, noise)
        if factor is not None and (found.numel() > 1 or has_name(factor, sizes)):  # one number is some multiple of any
            one.append(factor_text(factor, sizes))
    for name, guess in chain(guesses(), reordered(found, expected, axes)):
        factor = factor_between(found, guess, noise)
        if factor is not None and same(factor, 1):
            one.append(name)
        elif factor is not None and has_name(factor, sizes):
            two.append(f"{name}, and {factor_text(factor, sizes)}")
    return " or ".join(list(dict.fromkeys(one or two))[:AT_MOST]) or None


def norm(numbers: Tensor) -> float:
    return torch.linalg.vector_norm(numbers).item()


def same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=MATCH)


def factor_between(found: Tensor, guess: Tensor, noise: float = 0.0) -> float | None:
    """Returns c where ``found`` is c times ``guess``, else None."""
    size = norm(guess)
    if not 0 < size < math.inf:
        return None
    factor = (found * (guess / size)).sum().item() / size
    return factor if factor and norm(found - factor * guess) <= max(MATCH * norm(found), noise) else None


def factors_between(found: Tensor, one: Tensor, other: Tensor) -> tuple[float, float] | None:
    """Returns a and b where ``found`` is a times ``one`` plus b times ``other``, else None."""
    sizes = norm(one), norm(other)
    if found.numel() < 3 or not all(0 < size < math.inf for size in sizes):  # two numbers are some sum of any
        return None
    u, v = one / sizes[0], other / sizes[1]
    along, (fu, fv) = (u * v).sum().item(), ((found * w).sum().item() for w in (u, v))
    rest = 1 - along**2
    if rest < MATCH:
        return None
    a, b = ((fu - along * fv) / rest, (fv - along * fu) / rest)
    if not norm(found - a * u - b * v) <= max(MATCH * min(sizes), ROUNDING * max(sizes)):
        return None
    return a / sizes[0], b / sizes[1]


def factor_names(factor: float, sizes: Sizes) -> list[str]:
    """Returns what makes numbers so many times too large, apart from the sign; several where sizes coincide."""
    samples, outputs, classifiers = sizes
    names = [
        (2, "twice what it should be"),
        (0.5, "half of what it should be"),
        (samples, "the 1/N is missing"),
        (2 * samples if samples > 1 else 1, "the 1/N is missing and all is doubled"),
        (1 / samples, "divided by N once too often"),
        (samples / (samples - 1) if samples > 2 else 1, "divided by N - 1 in place of N"),
        (outputs, "added up K times, K being the number of classes"),
        (1 / outputs, "divided by K, the number of classes"),
        (1 / classifiers, "divided by the number of classifiers"),
        (1 / math.log(2), "in bits, not in nats"),
    ]
    return [text for value, text in names if value != 1 and same(abs(factor), value)]


def has_name(factor: float, sizes: Sizes) -> bool:
    return same(factor, -1) or bool(factor_names(factor, sizes))


def factor_text(factor: float, sizes: Sizes) -> str:
    """Returns the same in words, with the number where these have none."""
    if same(factor, -1):
        return "the sign is wrong"
    number = f"{abs(factor):.10g} times what it should be"
    text = " or ".join(factor_names(factor, sizes)) or number
    text = text if "it should be" in text else f"{text} ({number})"
    return text if factor > 0 else f"{text}, and the sign is wrong"


def reordered(found: Tensor, expected: Tensor, axes: Sequence[str]) -> Iterator[Guess]:
    """Yields what is expected with two indices of an axis swapped, with all reversed, and with all shifted by one."""
    for axis, name in enumerate(axes):
        length, bad = expected.shape[axis], indices(found, expected, axis)
        if len(bad) == 2:
            order = torch.arange(length, device=expected.device)
            order[bad] = order[bad.flip(0)]
            yield f"{plural(name)} {bad[0]} and {bad[1]} are swapped", expected.index_select(axis, order)
        elif len(bad) > 2:
            yield f"the order of the {plural(name)} is reversed", expected.flip(axis)
            for shift in (1, -1):
                yield f"the {plural(name)} are shifted by one", expected.roll(shift, axis)


def plural(name: str) -> str:
    return f"{name}es" if name.endswith("s") else f"{name}s"


def indices(found: Tensor, expected: Tensor, axis: int) -> Tensor:
    """Returns those of an axis at which any number is wrong."""
    wrong = (found - expected).abs() > MATCH * expected.abs().max()
    return wrong.movedim(axis, 0).reshape(wrong.shape[axis], -1).any(1).nonzero().flatten()


def somewhere(found: Tensor, expected: Tensor, sizes: Sizes, axes: Sequence[str]) -> str:
    """Returns what is wrong with the numbers that are wrong, and where these stand if not everywhere."""
    places = []
    for axis, name in enumerate(axes):
        bad, length = indices(found, expected, axis), expected.shape[axis]
        if len(bad) < length:
            found, expected = (x.index_select(axis, bad) for x in (found, expected))
            places.append(f"{name} {bad[0]}" if len(bad) == 1 else f"{len(bad)} of {length} {plural(name)}")
    mistake = "not zero, as it should be" if norm(expected) == 0 else named(found, expected, sizes) if places else None
    return (mistake or "wrong, by no constant ratio") + (f" in {', '.join(places)} alone" if places else "")


# --- what mistakes give --------------------------------------------------------------------------------------------


def gradient_of_losses(loss: Loss, z: Tensor, target: Tensor) -> Tensor:
    """Returns what autograd makes of the plain formula: p - y, (L, K, N), each sample's loss by its logits."""
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        return torch.autograd.grad(loss.plain(leaf, target).sum(), leaf)[0]


def other_targets(loss: Loss, outputs: int, target: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yields targets that stand for others by mistake."""
    if loss.sigmoids:
        yield "the target is off by one class (1 - y in place of y)", 1 - target
    if target.dim() == 2:
        for shift in (1, -1):
            yield "the target is off by one label", target.roll(shift, 1)
    elif not loss.sigmoids and outputs > 1:
        for shift in (1, -1):
            yield "the target is off by one class", (target + shift) % outputs


def residuals(loss: Loss, z: Tensor, target: Tensor) -> Iterator[Guess]:
    """Yields what stands in the place of p - y, (L, K, N), by a mistake in the derivative for the logits."""
    for name, other in other_targets(loss, z.shape[1], target):
        yield name, gradient_of_losses(loss, z, other)
    if loss.residual is None:  # p is no softmax and no sigmoid
        return
    dz = gradient_of_losses(loss, z, target)
    if loss.sigmoids:
        p, y = torch.sigmoid(z), targets_by_output(target).to(z.dtype).expand_as(z)
        yield "the minus of d ln(1 - p) is missing", -y * (1 - p) - (1 - y) * p
        if z.shape[1] > 1:
            yield "a softmax in place of sigmoids", torch.softmax(z, 1) - y
    else:
        p, y = torch.softmax(z, 1), torch.zeros_like(z).scatter_(1, target.expand(len(z), 1, -1), 1)
        yield "sigmoids in place of the softmax", torch.sigmoid(z) - y
        yield "the softmax runs over the samples", torch.softmax(z, 2) - y
        yield "the softmax runs over the classifiers", torch.softmax(z, 0) - y
        yield "e^z in place of p, which the sum over the classes does not divide", z.exp() - y
    yield "p in place of p - y", p
    yield "y in place of p - y", y
    yield "p + y in place of p - y", p + y
    yield "ln p in place of p", p.log() - y
    yield "the logits in place of p", z - y
    yield f"|p - y| in place of p - y{': the factor t is missing' if loss.sigmoids else ''}", dz.abs()
    yield "(p - y)^2 in place of p - y", dz.square()
    yield "a factor p (1 - p) too many", dz * p * (1 - p)
    yield "only where y is 1", dz * y
    yield "only where y is 0", dz * (1 - y)


def left_out(found: Tensor, expected: Tensor, dz: Tensor, input: Tensor) -> Iterator[Guess]:
    """Yields what is expected without the sample that explains the difference best, with it counted twice, and alone.

    Args:
        found, expected: (L, K, I), sums over samples of ``dz (L, K, N)`` times ``input (N, I)``.
    """
    samples = len(input)
    sizes = (dz.square().sum((0, 1)) * input.square().sum(1)).clamp_min(1e-300)
    for share in (1, 1 - 1 / samples):  # in the mean over N, and in that over those that are left
        along = ((found * share - expected) @ input.t() * dz).sum((0, 1))
        n = int((along.square() / sizes).argmax())
        part = dz[:, :, n].unsqueeze(2) * input[n]
        yield f"sample {n} is left out", expected - part
        yield f"sample {n} counts twice", expected + part
    n = int(((found @ input.t() * dz).sum((0, 1)).square() / sizes).argmax())
    yield f"sample {n} alone, not the sum over all", dz[:, :, n].unsqueeze(2) * input[n]


def wrong_losses(loss: Loss, z: Tensor, target: Tensor) -> Iterator[Guess]:
    """Yields what stands in the place of the mean loss, (L,)."""
    losses = loss.plain(z, target)
    for name, other in other_targets(loss, z.shape[1], target):
        yield name, loss.plain(z, other).mean(1)
    for n, of_sample in enumerate(losses.unbind(1)):
        yield f"sample {n} is left out", losses.mean(1) - of_sample / losses.shape[1]
        yield f"sample {n} counts twice", losses.mean(1) + of_sample / losses.shape[1]
    yield "the largest loss in place of the mean", losses.amax(1)
    if loss.residual is not None and not loss.sigmoids:
        yield "p in place of ln p", losses.neg().exp().mean(1)
        yield "the logit of the class in place of ln p", (losses - z.logsumexp(1)).mean(1)


def wrong_weights(expected: Tensor, unweighted: Tensor, s: Tensor) -> list[Guess]:
    """Returns what stands in the place of a mean weighted by ``s (N,)``; ``unweighted`` is that with equal weights."""
    return [
        ("the sample weights are left out", unweighted),
        ("divided by N in place of the sum of the sample weights", expected * s.mean()),
        ("the sample weights are not divided by their sum", expected * s.sum()),
    ]


def wrong_penalties(scale: Tensor, parameter: Tensor) -> list[Guess]:
    """Returns what stands in the place of ``scale`` times half the sum of squares, (L,)."""
    squares = parameter.square().flatten(1).sum(1)
    return [
        ("the 1/2 is missing", scale * squares),
        ("the norm in place of half its square", scale * squares.sqrt()),
        ("absolute values in place of squares", scale * parameter.abs().flatten(1).sum(1)),
        ("the mean of the squares in place of their sum", scale * squares / parameter[0].numel() / 2),
    ]


def wrong_penalty_gradients(arriving: Tensor, l2: Tensor, parameter: Tensor) -> Iterator[Guess]:
    """Yields what stands in the place of ``arriving l2 parameter``, (L, *)."""

    def scaled(scale: Tensor, parameter: Tensor = parameter) -> Tensor:
        return scale.reshape(-1, *[1] * (parameter.dim() - 1)) * parameter

    yield "l2 is not a factor", scaled(arriving)
    yield "l2 is squared", scaled(arriving * l2.square())
    yield "l2 of another classifier", scaled(arriving * l2.roll(1))
    yield "l2 of another classifier", scaled(arriving * l2.flip(0))
    yield "what arrives from above is left out", scaled(l2)
    yield "w is not a factor", scaled(arriving * l2, torch.ones_like(parameter))
    yield "w is squared", scaled(arriving * l2, parameter.square())
    yield (
        "the gradient of the norm in place of half its square",
        scaled(arriving * l2 / parameter.square().flatten(1).sum(1).sqrt()),
    )
    yield "the gradient of absolute values in place of half their squares", scaled(arriving * l2, parameter.sign())
