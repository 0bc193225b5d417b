"""The Lightning module that all models share: parameters with a path axis, steps and metrics; no calculus."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Protocol, cast

import pytorch_lightning as pl
import torch
from torch import Tensor

from handgrad.compat import count_updates
from handgrad.data.array_files import available_memory
from handgrad.data.blocks import Block, Samples
from handgrad.data.normalization import folded
from handgrad.errors import InputError
from handgrad.functions.linear_map import linear_map
from handgrad.functions.objective import Loss, Objective, in_turn
from handgrad.functions.samples import widest

log = logging.getLogger(__name__)

COPIES = 10  # of the parameters: best, gradient, the solver's, those trained ahead and in a checkpoint; as measured
WORTH_SAYING = 2**30  # bytes
NUMBERS_AT_ONCE = 2**20  # logits, or features that are read and cast, at once


def check_memory(paths: int, numbers: int) -> None:
    """Says what a long path will need; raises an InputError if there is less, before any of it is taken.

    Args:
        numbers: parameters of a classifier.
    """
    needed, available = COPIES * 4 * paths * numbers, available_memory()
    told = f"l2: {paths:,} values of {numbers:,} parameters need about {needed / 1e9:.1f} GB of memory"
    if available is not None and needed > available:
        fit = available // (COPIES * 4 * numbers)
        raise InputError(f"{told}, {available / 1e9:.1f} GB are available; accepted are {fit:,} values at most")
    if needed > WORTH_SAYING:
        log.info(told)


def counts_alone(node: Any) -> bool:
    """Tells whether a part of a checkpoint is nothing but whole numbers, by name."""
    return all(map(counts_alone, node.values())) if isinstance(node, dict) else isinstance(node, int)


class Progress(Protocol):
    """What a step of a solver did: `handgrad.solvers.protocol.Progress`."""

    @property
    def curves(self) -> dict[str, Tensor]: ...

    @property
    def made(self) -> Tensor: ...

    @property
    def moved(self) -> Tensor: ...


class Loop(Protocol):
    """What trains and evaluates for a model: `handgrad.training.pipeline.Pipeline`."""

    total: Callable[[Tensor], Tensor] | None
    seconds: float

    @property
    def one_at_a_time(self) -> bool: ...

    def start(self, objective: Objective, weight: Tensor, bias: Tensor, active: Tensor) -> None: ...

    def finish(self) -> None: ...

    def train(self, block: Block) -> Progress: ...

    def done(self) -> Tensor: ...

    def report(self) -> dict[str, Tensor]: ...

    def run(self, calls: Sequence[Callable[[], Any]]) -> list[Any]: ...

    def sums(self, outputs: int, *tasks: tuple[Callable[[Tensor, Tensor], Tensor], Samples]) -> list[Tensor]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Alone:
    """Evaluates sets, a part at a time, for a model that was loaded by itself; what trains is a `Pipeline`."""

    one_at_a_time = False
    run = staticmethod(in_turn)

    def sums(self, outputs: int, *tasks: tuple[Callable[[Tensor, Tensor], Tensor], Samples]) -> list[Tensor]:
        found = []
        for function, (input, target) in tasks:
            rows = max(1, NUMBERS_AT_ONCE // max(outputs, input.shape[1]))
            parts = (slice(first, first + rows) for first in range(0, len(target), rows))
            found.append(torch.stack([function(input[part], target[part]) for part in parts]).sum(0).cpu().double())
        return found


class LinearClassifier(pl.LightningModule):
    """L linear classifiers, one per ``l2`` value, trained side by side on the same mini-batches.

    Classifier l minimizes ``J_l = C_l + l2_l * R_l`` (seed eq. 38): the mean loss over the mini-batch and the L2
    penalty. Each is trained exactly as if it were alone: it has its own loss, its own stop (see ``active``) and
    its own best weights.

    Shapes: ``weight (L, K, D)``, ``bias (L, K)``; K outputs, D features. All start at zero.

    Args:
        num_features: D.
        num_classes: number of classes C, or of labels; a subclass derives K from it.
        l2: the L penalties, each >= 0.
        penalize_bias: whether R counts the bias too, as the course's bias trick does.

    Attributes:
        task: what it is called in results; a subclass names it, and the next one.
        criterion: the loss, with its derived gradient.
        multilabel: whether a sample may have several labels, or none: then targets are (N, K), 0 or 1.
        pipeline: what trains and evaluates; `handgrad.fit.fit` sets it. Without it Lightning's Trainer can test and
            validate a model that was loaded, but not train it.
    """

    task: str
    criterion: Loss
    multilabel: bool = False
    pipeline: Loop = cast(Loop, Alone())

    # Buffers.
    l2: Tensor
    active: Tensor
    steps: Tensor
    best_step: Tensor
    best_weight: Tensor
    best_bias: Tensor

    def __init__(
        self,
        *,
        num_features: int,
        num_classes: int,
        l2: Sequence[float],
        penalize_bias: bool = False,
    ) -> None:
        super().__init__()
        l2 = [float(value) for value in l2]  # plain: a checkpoint that holds a config's list could not be loaded safely
        self.save_hyperparameters()
        self.automatic_optimization = False  # one training_step makes as many updates as its block has mini-batches
        self.penalize_bias = penalize_bias
        paths, outputs = len(l2), self.num_outputs(num_classes)
        check_memory(paths, outputs * (num_features + 1))
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
        self.metrics: dict[str, Tensor] = {}  # of the latest check, each (L,), on the CPU as the next one
        self.moved = torch.ones(paths, dtype=torch.bool)  # classifiers that the latest block worked on

    @staticmethod
    def num_outputs(num_classes: int) -> int:
        """Returns K, the number of linear outputs that tell ``num_classes`` classes apart."""
        raise NotImplementedError

    @staticmethod
    def decide(logits: Tensor) -> Tensor:
        """Returns the predicted classes (L, N), or labels (L, N, K), for logits (L, N, K)."""
        raise NotImplementedError

    def right(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns how many samples are decided rightly (L,), each of several labels, for logits (L, N, K)."""
        right = self.decide(logits) == target
        return (right.all(2) if self.multilabel else right).sum(1)

    def forward(self, input: Tensor) -> Tensor:
        """Returns the logits (L, N, K) of ``input (N, D)``."""
        return (linear_map(input, self.weight) + self.bias.unsqueeze(2)).transpose(1, 2)

    def objective(self, total: Callable[[Tensor], Tensor] | None = None) -> Objective:
        """Returns ``J``, whose gradient trains; ``total`` adds up over the processes that share the samples."""
        return Objective(self.criterion, self.l2, self.penalize_bias, total=total)

    def configure_optimizers(self) -> None:
        """Gives Lightning none: the solver has them."""

    def on_fit_start(self) -> None:
        l2 = torch.tensor(self.hparams["l2"], dtype=torch.float64)  # rounded before precision was known
        self.l2.copy_(l2.to(self.l2.dtype))
        self.pipeline.start(self.objective(self.pipeline.total), self.weight, self.bias, self.active)

    def on_train_end(self) -> None:
        self.pipeline.finish()

    def training_step(self, block: Block, batch_idx: int) -> dict[str, Tensor]:
        """Makes the updates of ``block``; returns the solver's curves, by name, each (B, L)."""
        progress = self.pipeline.train(block)
        count_updates(self.trainer, len(block))
        self.steps += progress.made.to(self.steps.device)
        self.moved = progress.moved.cpu()
        self.active[self.pipeline.done()] = 0
        self.trainer.should_stop |= not self.active.any()
        return progress.curves

    @torch.inference_mode()
    def loss_and_hits(self, input: Tensor, target: Tensor, entries: Tensor | None = None) -> Tensor:
        """Returns the summed loss and the number of right decisions, (2, L) in the widest type; or of some entries."""
        weight, bias = (self.weight, self.bias) if entries is None else (self.weight[entries], self.bias[entries])
        dtype = torch.promote_types(weight.dtype, torch.float32)  # half precision would round the loss of a set
        loss, logits = self.criterion.function(input.to(dtype), weight.to(dtype), target, bias.to(dtype))
        return torch.stack((loss.to(widest(loss.device)) * len(target), self.right(logits, target)))

    @torch.inference_mode()
    def hits(self, input: Tensor, target: Tensor) -> Tensor:
        """Returns the number of right decisions, (L,) in the widest type."""
        return self.right(self(input.to(self.weight.dtype)), target).to(widest(target.device))

    def validation_step(self, batch: dict[str, Samples], batch_idx: int) -> None:
        """Evaluates the validation set and the training set; of one classifier at a time, the one that moved."""
        if self.pipeline.one_at_a_time:
            self.evaluate_moved(batch)
            return
        val, train = batch["val"], batch["train"]
        tasks = (self.loss_and_hits, val), (self.hits, train)
        val_sums, train_hits = self.pipeline.sums(self.bias.numel(), *tasks)
        val_loss, val_accuracy = val_sums / len(val[1])
        train_accuracy = train_hits / len(train[1])
        self.metrics = {"loss/val": val_loss, "accuracy/val": val_accuracy, "accuracy/train": train_accuracy}

    def evaluate_moved(self, batch: dict[str, Samples]) -> None:
        """Takes the metrics of the classifiers that moved; the others keep theirs, at first NaN."""
        entries = self.moved.nonzero().flatten()
        of_moved = partial(self.loss_and_hits, entries=entries)
        found = self.pipeline.sums(len(entries) * self.bias.shape[1], *((of_moved, part) for part in batch.values()))
        metrics = {}
        for (split, (_, target)), sums in zip(batch.items(), found, strict=True):
            metrics[f"loss/{split}"], metrics[f"accuracy/{split}"] = sums / len(target)
        del metrics["loss/train"]  # of which there is a curve already
        for name, values in metrics.items():
            whole = self.metrics.get(name, torch.full((len(self.moved),), torch.nan, dtype=torch.float64))
            self.metrics[name] = whole.index_copy(0, entries, values)

    def on_validation_epoch_end(self) -> None:
        self.metrics["weight_norm"] = self.weight_norm_squared().sqrt()
        self.metrics["penalty"] = self.objective().penalty(self.weight.detach(), self.bias.detach()).cpu()
        loss = self.metrics.get("loss/val", torch.full_like(self.best_loss, torch.nan))
        better = loss < self.best_loss
        if self.pipeline.one_at_a_time:  # an optimum is looked for once, and is best as it is
            better = self.moved
        self.best_loss = torch.where(better, loss, self.best_loss)
        self.best_step[better] = self.steps[better]
        self.best_weight[better] = self.weight.detach()[better]
        self.best_bias[better] = self.bias.detach()[better]
        self.tell({"_".join(reversed(name.split("/"))): values for name, values in self.metrics.items()})

    def on_test_epoch_end(self) -> None:
        self.tell({name: values for name, values in self.final.items() if not name.startswith("last_")})

    def tell(self, metrics: dict[str, Tensor]) -> None:
        """Gives callbacks of others what to watch: ``metrics``, each (L,), by the names of the results.

        On a path a name ends with the l2 value: ``val_loss/l2=0.02``. What tests a model that was loaded returns them.
        """
        ends = [f"/l2={l2}" for l2 in self.hparams["l2"]] if len(self.l2) > 1 else [""]
        named = {name + end: value for name, values in metrics.items() for end, value in zip(ends, values, strict=True)}
        if isinstance(self.pipeline, Alone):
            self.log_dict(named, batch_size=1)
        else:  # Lightning would also log them, besides what the callbacks do
            self.trainer.callback_metrics.update(named)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["model"] = type(self).__name__
        checkpoint["best_loss"] = self.best_loss
        if "callbacks" in checkpoint:  # else the weights alone are saved
            checkpoint["solver"] = self.pipeline.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises an InputError if the checkpoint is of another model or other hyperparameters, or has no weights."""
        found = {"model": checkpoint.get("model"), **checkpoint.get("hyper_parameters", {})}
        expected = {"model": type(self).__name__, **self.hparams}
        for name, value in expected.items():
            if found.get(name) != value:
                raise InputError(f"the checkpoint's {name} is {found.get(name)}; expected {value}")
        for name, tensor in checkpoint.get("state_dict", {}).items():
            if not tensor.isfinite().all():
                raise InputError(f"the checkpoint's {name} has numbers that are not finite; accepted are finite ones")
        if checkpoint["best_loss"].shape != self.best_loss.shape:
            raise InputError(
                f"the checkpoint's best_loss is not a number for each of {len(self.best_loss)} classifiers"
            )
        self.best_loss = checkpoint["best_loss"]
        if not isinstance(self.pipeline, Alone):  # else it is not to be trained
            if not ("callbacks" in checkpoint and counts_alone(checkpoint.get("loops"))):
                raise InputError("the checkpoint does not say how far the run had come; accepted is its last.ckpt")
            self.pipeline.load_state_dict(checkpoint["solver"])

    def inverse_penalty(self, l2: float, samples: float) -> float | None:
        """Returns scikit-learn's C, whose objective is ``C sum loss + R``; None where it would be infinite.

        Two classes are one sigmoid there, which at half of l2 is this softmax.

        Args:
            samples: N, or the sum of the sample weights.
        """
        if not l2:
            return None
        return (2 if self.bias.shape[1] == 2 and not self.criterion.sigmoids else 1) / (l2 * samples)

    def weight_norm_squared(self) -> Tensor:
        """Returns the sum of squared weights (L,), with the bias where it is penalized (the course's w holds it)."""
        wide = widest(self.weight.device)
        squares = self.weight.detach().to(wide).square().sum((1, 2)).cpu().double()
        return squares + self.bias.detach().to(wide).square().sum(1).cpu().double() if self.penalize_bias else squares

    @contextmanager
    def best(self) -> Iterator[None]:
        """Puts the best weights in place of the last ones for a while."""
        last = self.weight.data, self.bias.data
        self.weight.data, self.bias.data = self.best_weight, self.best_bias
        try:
            yield
        finally:
            self.weight.data, self.bias.data = last

    @contextmanager
    def unnormalized(self, shift: Tensor, scale: Tensor) -> Iterator[None]:
        """Puts weights for features as they are in place of those for (x - shift) / scale, each (D,), for a while."""
        weight, bias = self.weight.data, self.bias.data
        self.weight.data, self.bias.data = folded(weight, bias, shift, scale)
        try:
            yield
        finally:
            self.weight.data, self.bias.data = weight, bias

    @contextmanager
    def best_as_given(self, normalization: tuple[Tensor, Tensor] | None) -> Iterator[None]:
        """Puts the best weights for features as they are, which trained by columns normalized so, for a while."""
        with self.best(), self.unnormalized(*normalization) if normalization else nullcontext():
            yield

    def test_step(self, batch: dict[str, Samples], batch_idx: int) -> None:
        """Evaluates the best and the last weights on every split there is."""
        self.final: dict[str, Tensor] = {}
        with self.best():
            self.evaluate_all(batch, "")
        if self.pipeline.one_at_a_time:
            self.final |= {f"last_{name}": values for name, values in self.final.items()}
        else:
            self.evaluate_all(batch, "last_")

    def evaluate_all(self, batch: dict[str, Samples], prefix: str) -> None:
        """Fills ``final`` with what the present weights give, under the names of the results."""
        self.final[f"{prefix}weight_norm_squared"] = self.weight_norm_squared()
        sums = self.pipeline.sums(self.bias.numel(), *((self.loss_and_hits, part) for part in batch.values()))
        for (split, (_, target)), found in zip(batch.items(), sums, strict=True):
            self.final[f"{prefix}{split}_loss"], self.final[f"{prefix}{split}_accuracy"] = found / len(target)
