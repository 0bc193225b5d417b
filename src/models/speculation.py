"""Speculative training: the next block is trained in one thread while others evaluate what the last one led to."""

import copy

import torch
from torch import Tensor

from src.data.blocks import Block
from src.models.linear_classifier import LinearClassifier


class Speculation:
    """Makes the next block's updates on a copy of the model; the model takes them over when that block's turn comes.

    So the model stays what its last update made it while it is evaluated, saved and drawn, and whether it goes on is
    still decided in between: once that stopped a classifier, the copy's updates are thrown away and made anew.

    Args:
        model: trains on the CPU in one process.
    """

    def __init__(self, model: LinearClassifier) -> None:
        self.model = model
        self.ahead = type(model)(**model.hparams, optimizer=model.optimizer).to(model.weight.dtype)
        self.ahead.l2 = model.l2
        self.optimizer = self.ahead.configure_optimizers()
        self.block: Block | None = None
        self.losses: Tensor | None = None

    def prepare(self, block: Block | None, optimizer: torch.optim.Optimizer) -> None:
        """Makes ready for ``block``, the one after the model's last; None: that was the last of all."""
        self.block, self.losses = block, None
        self.ahead.active.copy_(self.model.active)
        hand_over(self.model, optimizer, self.ahead, self.optimizer)

    def run(self) -> None:
        """Makes the updates, in whatever thread calls it."""
        if self.block is not None:
            with torch.inference_mode(False), torch.enable_grad():
                self.losses = self.ahead.make_updates(self.block, self.optimizer)

    def take(self, optimizer: torch.optim.Optimizer) -> Tensor | None:
        """Hands the block's updates to the model and returns its losses; None: the model must make them itself."""
        if self.losses is None or not torch.equal(self.ahead.active, self.model.active):
            return None
        hand_over(self.ahead, self.optimizer, self.model, optimizer)
        return self.losses


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
