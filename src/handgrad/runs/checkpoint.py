"""Checkpoint files that are whole or absent."""

import hashlib
import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import CheckpointIO

from handgrad.errors import InputError

MARK = b"handgrad sha256:"  # the file ends with this and the digest of all before it; torch.load passes over both
TRAILER = len(MARK) + hashlib.sha256().digest_size


def replace_file(path: Path, content: bytes) -> None:
    """Writes ``content`` to ``path`` so that at any moment the old file or the whole new one is there.

    Raises:
        OSError: it could not be written; the old file is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class WholeCheckpointIO(CheckpointIO):
    """Saves atomically with a checksum; loads only local, undamaged files, and never runs code from them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        content = buffer.getvalue()
        path = Path(path)
        try:
            replace_file(path, content + MARK + hashlib.sha256(content).digest())
            for stale in path.parent.glob(f".{path.name}.*.tmp"):  # of processes that were killed while writing
                stale.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{path}: checkpoint not saved ({error.strerror}); an earlier one is kept") from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Returns the checkpoint.

        Raises:
            InputError: ``path`` is no local file, is damaged, or was not written by this project.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(
                f"{path}: no such checkpoint file; expected a local file like outputs/<run>/checkpoints/last.ckpt"
            )
        content = path.read_bytes()
        content, trailer = content[:-TRAILER], content[-TRAILER:]
        if trailer != MARK + hashlib.sha256(content).digest():
            raise InputError(f"{path}: damaged, or not a checkpoint of this project (its SHA-256 does not match)")
        try:
            return torch.load(io.BytesIO(content), map_location=map_location, weights_only=True)
        except Exception as error:
            raise InputError(f"{path}: not a checkpoint of this project ({type(error).__name__} on loading)") from error

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)
