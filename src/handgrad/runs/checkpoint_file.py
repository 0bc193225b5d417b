"""A checkpoint's file: what ``torch.save`` writes, and a checksum. Read without Lightning."""

import copy
import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from handgrad.errors import InputError

MARK = b"handgrad sha256:"  # the file ends with this and the digest of all before it; torch.load passes over both
TRAILER = len(MARK) + hashlib.sha256().digest_size


def sealed(checkpoint: dict[str, Any]) -> bytes:
    """Returns the content of the file, in which tensors lie on the CPU, so that any host can read it."""
    buffer = io.BytesIO()
    torch.save(on_cpu(checkpoint), buffer)
    content = buffer.getvalue()
    return content + MARK + hashlib.sha256(content).digest()


def on_cpu(node: Any) -> Any:
    """Returns a part of a checkpoint with its tensors on the CPU."""
    if isinstance(node, Tensor):
        return node.cpu()
    if type(node) in (list, tuple):
        return type(node)(map(on_cpu, node))
    if isinstance(node, dict):
        moved = copy.copy(node)  # of its own kind, with its own attributes
        moved.update({key: on_cpu(value) for key, value in node.items()})
        return moved
    return node


def read_checkpoint(path: Path, map_location: Any = None) -> dict[str, Any]:
    """Returns the checkpoint in a file, on the CPU unless it is told where; runs no code from it.

    Raises:
        InputError: ``path`` is no local file, is damaged, or was not written by this project.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such checkpoint file; expected a local file like outputs/<run>/checkpoints/last.ckpt"
        )
    content = path.read_bytes()
    content, trailer = content[:-TRAILER], content[-TRAILER:]
    if trailer != MARK + hashlib.sha256(content).digest():
        raise InputError(f"{path}: damaged, or not a checkpoint of this project (its SHA-256 does not match)")
    try:
        checkpoint = torch.load(io.BytesIO(content), map_location=map_location or "cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path}: not a checkpoint of this project ({type(error).__name__} on loading)") from error
    if not isinstance(checkpoint, dict):
        raise InputError(f"{path}: not a checkpoint of this project (a {type(checkpoint).__name__})")
    return checkpoint
