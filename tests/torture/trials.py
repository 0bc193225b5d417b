"""How often something is tried, and whether what came of it is the same to the bit."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from handgrad.runs.checkpoint import WholeCheckpointIO


def trials(short: int, long: int) -> list[Any]:
    """Returns the trials' numbers: those from ``short`` on run in the long form only."""
    return [*range(short), *(pytest.param(number, marks=pytest.mark.torture) for number in range(short, long))]


def leaves(node: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yields what a checkpoint holds, each with its place in it."""
    if isinstance(node, dict | list | tuple):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from leaves(value, f"{place}/{key}")
    else:
        yield place, node


def state_digest(run: Path) -> str:
    """Returns the SHA-256 of all that training has made of a run: weights, best weights, optimizer, early stopping."""
    digest = hashlib.sha256()
    for name in ("last.ckpt", "best.ckpt"):
        checkpoint = WholeCheckpointIO().load_checkpoint(run / "checkpoints" / name)
        kept = {key: checkpoint.get(key) for key in ("global_step", "state_dict", "best_loss")}
        kept["solver"] = checkpoint.get("solver", {}).get("memory")
        kept["early_stopping"] = checkpoint.get("callbacks", {}).get("PathEarlyStopping")
        for place, leaf in leaves(kept):
            content = leaf.numpy().tobytes() if isinstance(leaf, torch.Tensor) else repr(leaf).encode()
            digest.update(place.encode() + content)
    return digest.hexdigest()
