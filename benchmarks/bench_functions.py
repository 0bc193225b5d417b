"""One forward and backward pass of the loss functions: the derived gradients against autograd's."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import DEFAULT, ONE, Options, Sample, Table, alternate, spread, threads, timed
from handgrad.functions.l2_penalty import l2_penalty
from handgrad.functions.linear_binary_cross_entropy import linear_binary_cross_entropy
from handgrad.functions.linear_cross_entropy import linear_cross_entropy

BATCH, FEATURES, CLASSES = 128, 784, 10
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # input, weight (L, K, D), target, bias (L, K) -> loss (L,)


def ours_softmax(input: Tensor, weight: Tensor, target: Tensor, bias: Tensor) -> Tensor:
    return linear_cross_entropy(input, weight, target, bias)[0]


def autograd_softmax(input: Tensor, weight: Tensor, target: Tensor, bias: Tensor) -> Tensor:
    """One linear map for the whole path, as ``nn.Linear`` does it, then all cross-entropies at once."""
    paths, classes, _ = weight.shape
    logits = F.linear(input, weight.flatten(0, 1), bias.flatten()).view(-1, classes)
    losses = F.cross_entropy(logits, target.repeat_interleave(paths), reduction="none")
    return losses.view(-1, paths).mean(0)


def torch_fused_softmax(input: Tensor, weight: Tensor, target: Tensor, bias: Tensor) -> Tensor:
    """torch's own function, which has no path axis: one call per classifier."""
    return torch.stack(
        [F.linear_cross_entropy(input, w, target, linear_bias=b) for w, b in zip(weight, bias, strict=True)]
    )


def ours_logistic(input: Tensor, weight: Tensor, target: Tensor, bias: Tensor) -> Tensor:
    return linear_binary_cross_entropy(input, weight, target, bias)[0]


def autograd_logistic(input: Tensor, weight: Tensor, target: Tensor, bias: Tensor) -> Tensor:
    logits = F.linear(input, weight.flatten(0, 1), bias.flatten())
    targets = target.to(logits.dtype)[:, None].expand_as(logits)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(0)


def ours_penalty(input: Tensor, weight: Tensor, target: Tensor, bias: Tensor) -> Tensor:
    return l2_penalty(weight, weight.new_ones(len(weight)))


def autograd_penalty(input: Tensor, weight: Tensor, target: Tensor, bias: Tensor) -> Tensor:
    return 0.5 * weight.square().sum((1, 2))


SUBJECTS: dict[str, tuple[int, dict[str, Loss]]] = {  # classes, and the contestants: ours first
    "softmax": (
        CLASSES,
        {
            "linear_cross_entropy (ours)": ours_softmax,
            "nn.Linear + F.cross_entropy": autograd_softmax,
            "F.linear_cross_entropy": torch_fused_softmax,
        },
    ),
    "logistic": (
        2,
        {
            "linear_binary_cross_entropy (ours)": ours_logistic,
            "nn.Linear + F.binary_cross_entropy_with_logits": autograd_logistic,
        },
    ),
    "penalty": (CLASSES, {"l2_penalty (ours)": ours_penalty, "autograd": autograd_penalty}),
}


def run(options: Options) -> list[Table]:
    contestants = {}
    for subject, (classes, losses) in SUBJECTS.items():
        for paths in (1, 5, 100):
            arguments = data(paths, classes)
            check_same(losses, arguments)
            for count in (DEFAULT, ONE):
                repeats = max(1, (20 if options.quick else 1000) // paths)
                for name, loss in losses.items():
                    contestants[subject, paths, count, name] = passes(loss, arguments, count, repeats)
    samples = alternate(contestants, options)
    return [table(samples)]


def data(paths: int, classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    outputs = 1 if classes == 2 else classes
    input = torch.rand(BATCH, FEATURES, generator=generator) * 2 - 1
    weight = (0.05 * torch.randn(paths, outputs, FEATURES, generator=generator)).requires_grad_()
    bias = torch.zeros(paths, outputs, requires_grad=True)
    return input, weight, torch.randint(classes, (BATCH,), generator=generator), bias


def forward_backward(loss: Loss, arguments: tuple[Tensor, ...]) -> tuple[Tensor, Tensor | None]:
    """Returns the loss and the gradient for the weight."""
    _, weight, _, bias = arguments
    weight.grad = bias.grad = None
    value = loss(*arguments)
    value.backward(torch.ones_like(value))
    return value, weight.grad


def passes(loss: Loss, arguments: tuple[Tensor, ...], count: str, repeats: int) -> Callable[[], float]:
    def once() -> float:
        with threads(count):
            return timed(lambda: forward_backward(loss, arguments), repeats)

    return once


def check_same(losses: dict[str, Loss], arguments: tuple[Tensor, ...]) -> None:
    """Raises an AssertionError unless all contestants compute the same."""
    expected, *others = (forward_backward(loss, arguments) for loss in losses.values())
    for other in others:
        torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-5)


def table(samples: dict[tuple[str, int, str, str], Sample]) -> Table:
    rows = []
    for (subject, paths, count, name), sample in samples.items():
        ours = samples[subject, paths, count, next(iter(SUBJECTS[subject][1]))]
        ratio = None if ours is sample else ours.over(sample).median
        rows.append([name, paths, count, *spread(sample, 1e-6), ratio])
    columns = ["forward and backward", "L", "threads", "median us", "min", "max", "ours over it"]
    note = (
        f"Batch {BATCH}, {FEATURES} features, {CLASSES} classes, float32; all of a subject compute the same, checked."
    )
    return Table("passes", "Loss functions", columns, rows, [note])
