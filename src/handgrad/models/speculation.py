"""Speculative training: the next block is trained while what the last one led to is evaluated."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from handgrad.data.blocks import Block
from handgrad.models.linear_classifier import LinearClassifier


class Speculation:
    """Makes the next block's updates on a copy of the model; the model takes them over when that block's turn comes.

    So the model stays what its last update made it while it is evaluated, saved and drawn, and whether it goes on is
    still decided in between: once that stopped a classifier, the copy's updates are thrown away and made anew.

    A long path is copied in parts, which several threads train side by side and which meet at the block's end only.

    Args:
        model: trains on the CPU in one process.
        ahead: whether to train ahead: of no use to one thread. The parts, and so the bits, are the same.
    """

    OUTPUTS = 500  # of a part, L * K; smaller parts would be slowed down by one another's Python

    def __init__(self, model: LinearClassifier, ahead: bool) -> None:
        self.model, self.ahead = model, ahead
        paths, outputs = model.bias.shape
        size = math.ceil(paths / math.ceil(paths * outputs / self.OUTPUTS))
        self.parts = [Part(model, slice(first, first + size)) for first in range(0, paths, size)]
        self.tasks: list[Callable[[], None]] = []  # that make the next block's updates, in whatever threads call them

    def updates(self, block: Block, optimizer: torch.optim.Optimizer) -> Tensor:
        """Makes the model's updates of ``block``, or takes over those made ahead; returns the losses, (B, L)."""
        to_be_made = [part for part in self.parts if not part.is_valid()]
        for part in to_be_made:
            part.fetch(optimizer)
        self.model.run_all([partial(part.train, block) for part in to_be_made])
        losses = torch.cat([part.hand_over(optimizer) for part in self.parts], 1)
        following = block.following()
        self.tasks = [partial(part.train, following) for part in self.parts] if following and self.ahead else []
        return losses


class Part:
    """The classifiers ``rows`` of a model as a model of their own, with an optimizer of its own."""

    def __init__(self, model: LinearClassifier, rows: slice) -> None:
        self.whole, self.rows = model, rows
        arguments = {**model.hparams, "l2": model.hparams.l2[rows]}
        self.model = type(model)(**arguments, optimizer=model.optimizer).to(model.weight.dtype)
        self.model.l2 = model.l2[rows]
        self.optimizer = self.model.configure_optimizers()
        self.losses: Tensor | None = None

    @torch.no_grad()
    def fetch(self, optimizer: torch.optim.Optimizer) -> None:
        """Takes over the whole's parameters, with the optimizer's settings and what it remembers of them."""
        self.model.active.copy_(self.whole.active[self.rows])
        for theirs, own in zip(optimizer.param_groups, self.optimizer.param_groups, strict=True):
            own.update(theirs, params=own["params"])
        for theirs, own in zip(self.whole.parameters(), self.model.parameters(), strict=True):
            own.copy_(theirs[self.rows])
            for name, memory in optimizer.state.get(theirs, {}).items():
                self.optimizer.state[own][name] = (memory[self.rows] if memory.dim() else memory).clone()

    def train(self, block: Block) -> None:
        """Makes the updates of ``block``, also in the midst of an evaluation, where Lightning records no gradients."""
        with torch.inference_mode(False), torch.enable_grad():
            self.losses = self.model.make_updates(block, self.optimizer)

    def is_valid(self) -> bool:
        """Returns whether updates were made, of the classifiers that have not stopped by now."""
        return self.losses is not None and torch.equal(self.model.active, self.whole.active[self.rows])

    @torch.no_grad()
    def hand_over(self, optimizer: torch.optim.Optimizer) -> Tensor:
        """Gives the whole its parameters, and its optimizer what this one remembers of them; returns the losses."""
        for own, theirs in zip(self.model.parameters(), self.whole.parameters(), strict=True):
            theirs[self.rows] = own
            for name, memory in self.optimizer.state.get(own, {}).items():
                kept = optimizer.state[theirs]
                if name not in kept:
                    kept[name] = torch.zeros_like(theirs if memory.dim() else memory)
                kept[name][self.rows if memory.dim() else ...] = memory
        losses, self.losses = self.losses, None
        return losses
