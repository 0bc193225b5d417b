"""Standard output and standard error: what becomes of them is apart from the work.

A reader that has gone (``| head -1``), a full disk, a stream that was closed before the program began, and an encoding
that lacks a letter: none of them makes a failure of what is done and on disk.
"""

import codecs
import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import Any, TextIO, cast

from handgrad.errors import InputError

PLAIN = {"‖": "|", "±": "+-"}  # our own letters where the encoding lacks them
STANDARD = {0: "stdin", 1: "stdout", 2: "stderr"}


class Tolerant:
    """A stream whose failures are no errors: what it cannot take is lost, which is told once, on standard error.

    Args:
        name: in words; None: there is nowhere to tell it.
        strict: printing is the work, so that a failure is an error; a reader that has read enough is none.

    Raises:
        InputError: (by ``write``) it is strict, and has failed.
    """

    def __init__(self, stream: TextIO, name: str | None, strict: bool = False) -> None:
        self.stream, self.name, self.strict = stream, name, strict
        if isinstance(stream, TextIOWrapper) and not stream.closed and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="handgrad.plain")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            self.stream.write(text)
            if self.strict:
                self.stream.flush()
        except (OSError, ValueError) as error:  # a ValueError says that it is closed
            self.lose(error)
        return len(text)

    def isatty(self) -> bool:
        return not self.stream.closed and self.stream.isatty()

    def flush(self) -> None:
        try:
            self.stream.flush()
        except (OSError, ValueError) as error:
            self.lose(error)

    def lose(self, error: OSError | ValueError) -> None:
        """Sends what is written from now on, and what is left of before, to nowhere."""
        with suppress(OSError, ValueError):
            discard(self.stream.fileno())
        name, self.name = self.name, None
        is_left = isinstance(error, OSError) and error.errno == errno.EPIPE
        if name is None or (self.strict and is_left):
            return
        line = f"{name}: cannot be written ({getattr(error, 'strerror', None) or error})"
        if self.strict:
            raise InputError(line)
        print(f"warning: {line}; nothing else is lost", file=sys.stderr)


@contextmanager
def standard_streams(printing: bool = False) -> Iterator[None]:
    """Makes standard output and standard error tolerant; one that is closed leads nowhere.

    Args:
        printing: what is printed is the work itself.
    """
    if isinstance(sys.stdout, Tolerant):
        yield
        return
    codecs.register_error("handgrad.plain", plain)
    open_missing()
    before = sys.stdout, sys.stderr
    tolerant = Tolerant(sys.stdout, "standard output", printing), Tolerant(sys.stderr, None)
    sys.stdout, sys.stderr = cast(tuple[TextIO, TextIO], tolerant)
    try:
        yield
    finally:
        for stream in tolerant:
            stream.flush()
            stream.name = None  # a log that still has it is no part of the program
        sys.stdout, sys.stderr = before


def open_missing() -> None:
    """Opens what is closed of the three streams, to nowhere: a file opened later would get its number, and its text."""
    for number, name in STANDARD.items():
        try:
            os.fstat(number)
        except OSError:
            discard(number)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def discard(number: int) -> None:
    """Makes a file descriptor lead nowhere, in the processes that are started too."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
    os.set_inheritable(number, True)


def plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Stands in for what an encoding lacks: ours as ASCII, bytes of a file's name as they are, else an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter = error.object[error.start]
    if "\udc80" <= letter <= "\udcff":
        return bytes([ord(letter) - 0xDC00]), error.start + 1
    return PLAIN.get(letter) or letter.encode("ascii", "backslashreplace").decode(), error.start + 1


def terminal_width() -> int | None:
    """Returns the columns of the terminal that standard output is; None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
