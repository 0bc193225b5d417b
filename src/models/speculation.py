"""Speculative training: the next block is trained in another thread while what the last one led to is evaluated."""

import copy
from collections.abc import Callable
from concurrent.futures import Future

import torch
from torch import Tensor

from src.data.blocks import Block
from src.models.linear_classifier import LinearClassifier


class Speculation:
    """Makes the next block's updates on a copy of the model; the model takes them over when that block's turn comes.

    So the model stays what its last update made it while it is evaluated, saved and drawn, and whether it goes on is
    still decided in between: once that stopped a classifier, the copy's updates are thrown away and made anew.

    Args:
        model: trains on the CPU in one process, each update in one thread.
        submit: calls a function in another thread.
    """

    def __init__(self, model: LinearClassifier, submit: Callable[..., Future]) -> None:
        self.model, self.submit = model, submit
        self.ahead = type(model)(**model.hparams, optimizer=model.optimizer).to(model.weight.dtype)
        self.ahead.l2 = model.l2
        self.optimizer = self.ahead.configure_optimizers()
        self.losses: Future[Tensor] | None = None

    def start(self, block: Block | None, optimizer: torch.optim.Optimizer) -> None:
        """Begins with ``block``, the one after the model's last; None: that was the last of all."""
        self.losses = None
        if block is not None:
            self.ahead.active.copy_(self.model.active)
            hand_over(self.model, optimizer, self.ahead, self.optimizer)
            self.losses = self.submit(self.ahead.make_updates, block, self.optimizer)

    def take(self, optimizer: torch.optim.Optimizer) -> Tensor | None:
        """Hands the block's updates to the model and returns its losses; None: the model must make them itself."""
        if self.losses is None:
            return None
        losses = self.losses.result()
        if not torch.equal(self.ahead.active, self.model.active):
            return None
        hand_over(self.ahead, self.optimizer, self.model, optimizer)
        return losses


@torch.no_grad()
def hand_over(
    source: LinearClassifier,
    source_optimizer: torch.optim.Optimizer,
    target: LinearClassifier,
    target_optimizer: torch.optim.Optimizer,
) -> None:
    """Gives ``target`` the parameters of ``source``, with the optimizer's settings and what it remembers of them."""
    for new, old in zip(source_optimizer.param_groups, target_optimizer.param_groups, strict=True):
        old.update(new, params=old["params"])
    for new, old in zip(source.parameters(), target.parameters(), strict=True):
        old.copy_(new)
        if new in source_optimizer.state:
            target_optimizer.state[old] = copy.deepcopy(source_optimizer.state[new])
