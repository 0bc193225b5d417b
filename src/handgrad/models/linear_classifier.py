"""The Lightning module that both models share: parameters with a path axis, steps and metrics; no calculus."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from handgrad.data.blocks import Block
from handgrad.errors import InputError
from handgrad.functions.l2_penalty import accumulate_l2_gradient, l2_penalty
from handgrad.functions.linear_map import linear_map

# What is evaluated at once: much, for threads disturb one another at every step of Python between two operations.
LOGITS_AT_ONCE, LEAST_SAMPLES = 700_000, 1000


def in_turn(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Makes all calls; returns what they return."""
    return [call() for call in calls]


class LinearClassifier(pl.LightningModule):
    """L linear classifiers, one per ``l2`` value, trained side by side on the same mini-batches.

    Classifier l minimizes ``J_l = C_l + l2_l * R_l`` (seed eq. 38): the mean loss over the mini-batch and the L2
    penalty. Each is trained exactly as if it were alone: it has its own loss, its own stop (see ``active``) and
    its own best weights.

    Shapes: ``weight (L, K, D)``, ``bias (L, K)``; K outputs, D features. All start at zero.

    Args:
        num_features: D.
        num_classes: number of classes C; a subclass derives K from it.
        l2: the L penalties, each >= 0.
        penalize_bias: whether R counts the bias too, as the course's bias trick does.
        optimizer: takes parameters, returns a ``torch.optim.Optimizer``; needed for training only.
    """

    def __init__(
        self,
        *,
        num_features: int,
        num_classes: int,
        l2: Sequence[float],
        penalize_bias: bool,
        optimizer: Callable[[Iterator[torch.nn.Parameter]], torch.optim.Optimizer] | None = None,
    ) -> None:
        super().__init__()
        l2 = [float(value) for value in l2]  # plain: a checkpoint that holds a config's list could not be loaded safely
        self.save_hyperparameters(ignore=["optimizer"])
        self.automatic_optimization = False  # one training_step makes as many updates as its block has mini-batches
        self.optimizer = optimizer
        self.penalize_bias = penalize_bias
        paths, outputs = len(l2), self.num_outputs(num_classes)
        self.weight = torch.nn.Parameter(torch.zeros(paths, outputs, num_features))
        self.bias = torch.nn.Parameter(torch.zeros(paths, outputs))
        self.register_buffer("l2", torch.tensor(l2, dtype=self.weight.dtype))
        self.register_buffer("active", torch.ones(paths))  # 1 while a classifier trains, 0 once it has stopped
        self.register_buffer("steps", torch.zeros(paths, dtype=torch.int64))  # updates made
        self.register_buffer("best_step", torch.zeros(paths, dtype=torch.int64))
        self.register_buffer("best_weight", self.weight.detach().clone())
        self.register_buffer("best_bias", self.bias.detach().clone())
        # No buffer: half precision would round it.
        self.best_loss = torch.full((paths,), torch.inf, dtype=torch.float64)
        self.metrics: dict[str, Tensor] = {}  # of the latest check, each (L,)
        self.run_all = in_turn  # what a check has to do; in several threads where there are cores
        self.speculation = None  # on a CPU: the Speculation that trains while a check evaluates

    @staticmethod
    def num_outputs(num_classes: int) -> int:
        """Returns K, the number of linear outputs that tell ``num_classes`` classes apart."""
        raise NotImplementedError

    @staticmethod
    def criterion(input: Tensor, weight: Tensor, target: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean loss (L,) and the logits (L, N, K), differentiable by the derived gradient."""
        raise NotImplementedError

    @staticmethod
    def decide(logits: Tensor) -> Tensor:
        """Returns the predicted classes (L, N) for logits (L, N, K)."""
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:
        """Returns the logits (L, N, K) of ``input (N, D)``."""
        return (linear_map(input, self.weight) + self.bias.unsqueeze(2)).transpose(1, 2)

    def on_fit_start(self) -> None:
        self.l2.copy_(torch.tensor(self.hparams.l2, dtype=torch.float64))  # it was rounded before precision was known

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(self.parameters())

    @property
    def penalized(self) -> list[torch.nn.Parameter]:
        """The parameters whose squares R adds up."""
        return [self.weight, self.bias] if self.penalize_bias else [self.weight]

    def penalty(self) -> Tensor:
        """Returns ``l2 * R`` (L,)."""
        return sum(l2_penalty(parameter, self.l2) for parameter in self.penalized)

    def loss(self, input: Tensor, target: Tensor) -> Tensor:
        """Returns ``C`` (L,) for ``input (N, D)`` and ``target (N,)``."""
        return self.criterion(input.to(self.weight.dtype), self.weight, target, self.bias)[0]

    def differentiate(self, input: Tensor, target: Tensor, share: float | None = None) -> Tensor:
        """Sets the parameters' gradients to those of ``J``, to 0 once a classifier has stopped; returns ``C`` (L,).

        Args:
            input: ``(N, D)``.
            target: ``(N,)``.
            share: where several processes have a part of the mini-batch each, what this one's counts in their average.
        """
        loss = self.loss(input, target)
        self.weight.grad = self.bias.grad = None
        if share is None:
            torch.autograd.backward(loss, self.active)
        else:
            self.manual_backward(torch.dot(loss, self.active * share))
        if any(self.hparams.l2):
            for parameter in self.penalized:
                accumulate_l2_gradient(parameter, self.l2, self.active)
        return loss.detach()

    def training_step(self, block: Block, batch_idx: int) -> Tensor:
        """Makes one update per mini-batch of ``block``; returns each one's loss before its update, (B, L).

        With several processes each sees its share of a mini-batch, whose mean counts by its size; Lightning
        averages the gradients over the processes, which gives that of the whole mini-batch.
        """
        # Lightning's own backward and step ask every callback six times per update, as long as the update itself takes.
        optimizer = self.optimizers(use_pl_optimizer=False)
        if self.speculation:
            losses = self.speculation.updates(block, optimizer)
        else:
            losses = self.make_updates(block, optimizer, self.trainer.world_size)
        self.count_updates(len(block))
        return self.trainer.strategy.reduce(losses, reduce_op="sum")

    def make_updates(self, block: Block, optimizer: torch.optim.Optimizer, processes: int = 1) -> Tensor:
        """Makes the updates of ``block``; returns the losses, of this process's share of each mini-batch, (B, L)."""
        share = block.share * processes if processes > 1 else None
        step = type(optimizer).step.__wrapped__  # torch's profiler hook around it costs a seventh of an update
        losses = []
        with self.stopped_unchanged():
            for input, target in block:
                losses.append(self.differentiate(input, target, share))
                step(optimizer)
                del input, target  # the next ones then take their place in memory, which is still in the cache
        return torch.stack(losses) * block.share

    def count_updates(self, updates: int) -> None:
        """Moves on the trainer's ``global_step`` and the classifiers' own counts."""
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        for count in (progress.total, progress.current):
            count.ready += updates
            count.completed += updates
        self.steps += updates * self.active.to(torch.int64)

    @contextmanager
    def stopped_unchanged(self) -> Iterator[None]:
        """Keeps the weights of stopped classifiers: a zero gradient alone does not, once momentum moves them."""
        stopped = self.active == 0
        kept = [p.detach()[stopped] for p in self.parameters()] if stopped.any() else []
        yield
        for parameter, rows in zip(self.parameters(), kept, strict=False):
            parameter.data[stopped] = rows

    def sums(
        self,
        *tasks: tuple[Callable[[Tensor, Tensor], Tensor], tuple[Tensor, Tensor]],
        meanwhile: Sequence[Callable[[], None]] = (),
    ) -> list[Tensor]:
        """Returns, for each ``function, (input, target)``, the sum of what the function gives for parts of the set.

        Calls what is to be done ``meanwhile`` first.
        """
        rows = max(LOGITS_AT_ONCE // self.bias.numel(), LEAST_SAMPLES)
        parts = [
            [partial(function, *part) for part in zip(input.split(rows), target.split(rows), strict=True)]
            for function, (input, target) in tasks
        ]
        results = iter(self.run_all([*meanwhile, *chain(*parts)])[len(meanwhile) :])
        return [sum(islice(results, len(part))) for part in parts]  # in order: no thread changes a bit

    @torch.inference_mode()
    def loss_and_hits(self, input: Tensor, target: Tensor) -> Tensor:
        """Returns the summed loss and the number of right decisions, (2, L) in float64."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)  # half precision would round the loss of a set
        loss, logits = self.criterion(input.to(dtype), self.weight.to(dtype), target, self.bias.to(dtype))
        return torch.stack((loss.double() * len(target), (self.decide(logits) == target).sum(1)))

    @torch.inference_mode()
    def hits(self, input: Tensor, target: Tensor) -> Tensor:
        """Returns the number of right decisions, (L,) in float64."""
        return (self.decide(self(input.to(self.weight.dtype))) == target).sum(1).double()

    def validation_step(self, batch: dict[str, tuple[Tensor, Tensor]], batch_idx: int) -> None:
        """Evaluates the validation set and the training set."""
        val, train = batch["val"], batch["train"]
        meanwhile = self.speculation.tasks if self.speculation else []
        val_sums, train_hits = self.sums((self.loss_and_hits, val), (self.hits, train), meanwhile=meanwhile)
        val_loss, val_accuracy = val_sums / len(val[1])
        train_accuracy = train_hits / len(train[1])
        self.metrics = {"loss/val": val_loss, "accuracy/val": val_accuracy, "accuracy/train": train_accuracy}

    def on_validation_epoch_end(self) -> None:
        self.metrics["weight_norm"] = self.weight_norm_squared().sqrt()
        self.metrics["penalty"] = self.penalty().detach()
        loss = self.metrics["loss/val"]
        better = loss < self.best_loss.to(loss.device)
        self.best_loss = torch.where(better, loss, self.best_loss.to(loss.device))
        self.best_step[better] = self.steps[better]
        self.best_weight[better] = self.weight.detach()[better]
        self.best_bias[better] = self.bias.detach()[better]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["model"] = type(self).__name__
        checkpoint["best_loss"] = self.best_loss

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises an InputError if the checkpoint is of another model or other hyperparameters."""
        found = {"model": checkpoint.get("model"), **checkpoint.get("hyper_parameters", {})}
        expected = {"model": type(self).__name__, **self.hparams}
        for name, value in expected.items():
            if found.get(name) != value:
                raise InputError(f"the checkpoint's {name} is {found.get(name)}; expected {value}")
        self.best_loss = checkpoint["best_loss"]

    def weight_norm_squared(self) -> Tensor:
        """Returns the sum of squared weights (L,), with the bias where it is penalized (the course's w holds it)."""
        squares = self.weight.detach().double().square().sum((1, 2))
        return squares + self.bias.detach().double().square().sum(1) if self.penalize_bias else squares

    @contextmanager
    def best(self) -> Iterator[None]:
        """Puts the best weights in place of the last ones for a while."""
        last = self.weight.data, self.bias.data
        self.weight.data, self.bias.data = self.best_weight, self.best_bias
        try:
            yield
        finally:
            self.weight.data, self.bias.data = last

    def test_step(self, batch: dict[str, tuple[Tensor, Tensor]], batch_idx: int) -> None:
        """Evaluates the best and the last weights on every split there is."""
        self.final: dict[str, Tensor] = {}
        with self.best():
            self.evaluate_all(batch, "")
        self.evaluate_all(batch, "last_")

    def evaluate_all(self, batch: dict[str, tuple[Tensor, Tensor]], prefix: str) -> None:
        """Fills ``final`` with what the present weights give, under the names of the results."""
        self.final[f"{prefix}weight_norm_squared"] = self.weight_norm_squared()
        sums = self.sums(*((self.loss_and_hits, part) for part in batch.values()))
        for (split, (_, target)), found in zip(batch.items(), sums, strict=True):
            self.final[f"{prefix}{split}_loss"], self.final[f"{prefix}{split}_accuracy"] = found / len(target)
