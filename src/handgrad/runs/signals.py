"""SIGTERM, SIGUSR1 and SIGINT (Ctrl-C): at once, or put off until a run has saved its state."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from handgrad.runs.launch import is_first_process

# Clusters announce a job's end by SIGUSR1; Windows has SIGBREAK (Ctrl-Break) in place of it and of SIGTERM.
NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGBREAK")
STOPS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


class Interrupted(BaseException):
    """The program was told to stop.

    Args:
        number: the signal's.
        folder: of the run that was stopped, and can go on; None: there is none.
        done: what it had done when it saved its state, like "112 updates".

    Attributes:
        left: what is left of a run that cannot go on, in words.
    """

    def __init__(self, number: int, folder: Path | None = None, done: str = "") -> None:
        super().__init__(number, folder, done)
        self.number, self.folder, self.done = number, folder, done
        self.left = "before a run began"


class Stopping:
    """What the program does about signals.

    Attributes:
        patient: whether a second signal ends nothing at once: of a job that both a scheduler and a sweep may tell.
    """

    def __init__(self) -> None:
        self.installed = self.noting = self.patient = False
        self.put_off = False  # whether a run is under way that looks at `signal` by itself
        self.signal: int | None = None

    def install(self) -> None:
        """Takes over the signals."""
        self.put_off, self.signal, self.installed = False, None, True
        for number in STOPS:
            signal.signal(number, self.handle)

    @staticmethod
    def ignore() -> None:
        """Lets signals do nothing from here on: the program ends, and what is left of it is not to be cut."""
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)

    def interrupt(self, number: int) -> None:
        """Gives the main thread a signal, from another one, unless a run is under way that looks at it by itself."""
        if self.installed and not self.put_off and hasattr(signal, "pthread_kill"):
            signal.pthread_kill(threading.main_thread().ident or 0, number)

    def take_back(self) -> None:
        """Takes SIGTERM back from Lightning, which would end a run in the middle of a check, with exit code 0."""
        if self.installed:
            signal.signal(signal.SIGTERM, self.handle)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Puts signals off for what must not be cut; raises Interrupted at its end if one has come."""
        self.noting = True
        try:
            yield
        finally:
            self.noting = False
        if self.signal is not None:
            raise Interrupted(self.signal)

    def handle(self, number: int, frame: FrameType | None) -> None:
        again, self.signal = self.signal is not None, number
        if self.noting or (again and self.patient):
            return
        if not self.put_off or (again and is_first_process()):
            raise Interrupted(number)
        if is_first_process():
            with suppress(OSError):
                more = b"" if self.patient else b"; once more: at once"
                os.write(2, b"\nStopping at the next check" + more + b"\n")  # print must not be called in here


stopping = Stopping()
