"""What the processes do that the tests kill. A server imports this once and forks one per trial."""

import ctypes
import os
import socket
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytorch_lightning  # noqa: F401
import torch
import torch.utils.tensorboard
import torchvision  # noqa: F401

import handgrad.callbacks.checkpointing
import handgrad.callbacks.curves
import handgrad.callbacks.divergence_check
import handgrad.callbacks.early_stopping
import handgrad.callbacks.gradient_check
import handgrad.callbacks.progress_bar
import handgrad.callbacks.weight_images
import handgrad.data.mnist
import handgrad.fit
import handgrad.models.logistic_regression
import handgrad.models.softmax_regression
import handgrad.solvers.adam
import handgrad.solvers.sgd  # noqa: F401
import train
from handgrad.cli.command_line import command_line
from handgrad.data.mnist_files import prepare
from handgrad.runs.checkpoint import WholeCheckpointIO
from tests.torture import faults  # noqa: F401

NEW_NETWORK, NEW_NAME = 0x40000000, 0x04000000  # Linux's CLONE_NEWNET and CLONE_NEWUTS


def redirect(output: Path) -> None:
    """Sends what the process says, and what is said of it, to a file."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def program(folder: Path, words: Sequence[str], output: Path, environment: dict[str, str]) -> None:
    """Does what ``python train.py`` does with these words in this folder."""
    redirect(output)
    os.chdir(folder)
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.argv = [train.__file__, *words]
    with command_line() as stopped:
        train.resume(stopped) if stopped else train.main()


def changed_program(change: Callable[[], None], *arguments: Any) -> None:
    """Does the same after ``change``, one of those in ``faults``."""
    change()
    program(*arguments)


def program_on_host(space: str, name: str, *arguments: Any) -> None:
    """Does the same on one of the hosts of ``tests.torture.hosts``."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{space}") as network:
        if libc.setns(network.fileno(), NEW_NETWORK) or libc.unshare(NEW_NAME):
            raise OSError(ctypes.get_errno(), f"{space}: refused")
    socket.sethostname(name)
    program(*arguments)


def save_for_ever(path: Path, temporary: Path, said: Connection) -> None:
    """Saves checkpoints one after the other, each full of its own number; sends a byte after the first."""
    os.environ["TMPDIR"] = str(temporary)
    number = 0
    while True:
        WholeCheckpointIO().save_checkpoint({"number": number, "weight": torch.full((100_000,), number)}, path)
        if number == 0:
            said.send_bytes(b"saved")
        number += 1


def first_use(root: Path, output: Path) -> None:
    """Extracts the data files that are missing."""
    redirect(output)
    prepare(root)


def nothing() -> None:
    """Starts the server."""
