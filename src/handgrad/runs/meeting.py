"""Where the processes of a run meet: a store of torch's, in which the first one tells the others what it has decided.

torchrun's agent has a store for its workers already; elsewhere the first process has one, and the others are its
clients. The process group is made with the same store, so that one meeting serves all. Waiting is done by asking again
and again: who waits inside torch hears of no signal, and of no other process that has ended.
"""

import atexit
import json
import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from subprocess import Popen
from typing import NoReturn

import torch
from torch.distributed import PrefixStore, Store, TCPStore

from handgrad.errors import InputError
from handgrad.runs.interface import own_address, tell_gloo
from handgrad.runs.launch import Launch
from handgrad.runs.peers import ALLOWED, ENDED, Peers, reason
from handgrad.runs.signals import Interrupted

POLL = 0.05  # seconds between two questions
LINGER = 10.0  # seconds at most until the others have heard why this process ends
READING = 3600.0  # seconds that the slowest process may take to read the data longer than the fastest
COLLECTIVE = timedelta(hours=24)  # of a sum over processes: a slow process is no error


class Meeting:
    """This process among those of its run.

    Args:
        launch: which one it is.
        store: theirs.
        timeout: seconds, after which a process that has not come is given up.
        has_children: whether it has started the others itself, and ends them itself.
    """

    def __init__(self, launch: Launch, store: Store, timeout: float, has_children: bool = False) -> None:
        self.launch, self.store, self.timeout, self.has_children = launch, store, timeout, has_children
        self.children: Sequence[Popen] = ()  # from rank 1 on, once they are started
        keeper = None if launch.served else 0
        self.peers = Peers(store, launch.rank, launch.processes, launch.node_rank, timeout, keeper)

    def tell(self, name: str, value: str) -> None:
        """Tells all processes a value."""
        self.store.set(name, value)

    def hear(self, name: str) -> str:
        """Waits until a process has told the value; returns it, or raises what ``wait`` does."""
        self.wait([name], self.timeout, f"the first process has decided nothing in {self.timeout:g} s{ALLOWED}")
        return self.store.get(name).decode()

    def all_come(self, name: str, seconds: float, setting: str = ALLOWED) -> None:
        """Waits until all processes have come to the point ``name``, ``seconds`` at most; raises what ``wait`` does.

        Args:
            setting: what gives that time, as it is told.
        """
        self.tell(f"{name}/{self.launch.rank}", "1")
        names = [f"{name}/{rank}" for rank in range(self.launch.processes)]
        self.wait(names, seconds, f"in {seconds:g} s{setting} these processes have not come: {{}}")

    def wait(self, names: list[str], seconds: float, late: str) -> None:
        """Waits until all values are told.

        Args:
            late: what is told when it has taken so many seconds; {} stands for the processes that are late.

        Raises:
            InputError: it took too long, another process has failed, or the first one is gone.
            Interrupted: another process was told to stop.
        """
        end = time.monotonic() + seconds
        try:
            while not self.store.check(names):
                self.check_others()
                if time.monotonic() >= end:
                    missing = [name.rpartition("/")[2] for name in names if not self.store.check([name])]
                    raise InputError(late.format(", ".join(missing)))
                time.sleep(POLL)
            self.check_others()
        except RuntimeError as error:  # torch's DistNetworkError
            raise InputError("the process that the others meet at is gone") from error

    def check_others(self) -> None:
        """Raises an InputError where another process has failed, or Interrupted where one was told to stop."""
        codes = [child.poll() for child in self.children]
        if self.store.check([ENDED]):
            line, number = reason(self.store.get(ENDED))
            raise Interrupted(number) if number else InputError(line)
        for rank, code in enumerate(codes, 1):
            if code:  # it told nobody
                how = f"exit code {code}" if code > 0 else signal.Signals(-code).name
                raise InputError(f"process {rank} ended before it was ready, by {how}")

    def end(self, line: str = "", number: int = 0) -> str:
        """Leaves; where a line or a signal is given that is why all end, and it waits until they have heard of it.

        Returns:
            The line of a process that has ended all before; empty where none has.
        """
        before, rank = "", self.launch.rank
        with suppress(RuntimeError):  # the store may be gone
            if line or number:
                why = json.dumps([rank, socket.gethostname(), line, number]).encode()
                if (told := self.store.compare_set(ENDED, "", why.decode())) != why:
                    before = reason(told)[0]
        linger = 0.0 if self.has_children else LINGER
        self.peers.leave(linger if line or number else self.timeout)
        with suppress(RuntimeError):
            if torch.distributed.is_initialized():  # a thread of gloo that outlives the interpreter aborts it
                torch.distributed.destroy_process_group()
        return before

    def watch(self) -> None:
        """Lets a process that is lost from here on end all others: all have come."""
        self.peers.arm(self.timeout)

    def explain(self) -> NoReturn:
        """Waits until it is known why a connection was closed; the process ends meanwhile where a process is lost.

        Raises:
            InputError: another process has failed.
            Interrupted: it was told to stop.
        """
        self.peers.suspect()
        while True:
            with suppress(RuntimeError):  # the store may be gone
                self.check_others()
            time.sleep(POLL)

    def connect(self, device: torch.device) -> None:
        """Makes the process group, unless it is made already.

        Args:
            device: that of this process.
        """
        if torch.distributed.is_initialized():
            return
        towards = self.launch.place()[0]
        if self.launch.node_rank > 0:
            self.tell("address", own_address(towards) or "")
        self.all_come("ready", READING, ", longer than the fastest one read,")
        self.children = ()  # from here on the watch finds who is lost, and says so
        self.watch()
        if self.launch.node_rank == 0 and self.launch.nodes > 1:  # its own name may lead to 127.0.0.1
            towards = self.hear("address") or towards
        tell_gloo(towards)
        torch.distributed.init_process_group(
            torch.distributed.get_default_backend_for_device(device),
            store=PrefixStore("group", self.store),
            rank=self.launch.rank,
            world_size=self.launch.processes,
            timeout=COLLECTIVE,
            device_id=None if device.type == "cpu" else device,
        )


current: list[Meeting] = []  # that of this process, if it has one


def meet(launch: Launch, timeout: float) -> Meeting:
    """Returns this process's meeting with the others that were launched; makes it where there is none.

    Raises:
        InputError: the first process does not answer, or its port is taken.
    """
    if not current:
        atexit.register(leave)  # for whoever has not: the others would take it for lost
        host, port = launch.place()
        serves = launch.rank == 0 and not launch.served
        if not serves:
            reach(host, port, timeout)
        store = PrefixStore(f"handgrad/{launch.attempt}", opened(host, port, timeout, serves))
        current.append(Meeting(launch, store, timeout))
    return current[0]


def serve(processes: int, timeout: float) -> Meeting:
    """Returns this process's meeting with those that Lightning is about to start on this host, which find it by the
    environment."""
    if not current:
        atexit.register(leave)
        store = opened("127.0.0.1", 0, timeout, serves=True)
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
        launch = Launch("trainer.devices", processes, local_processes=processes)
        current.append(Meeting(launch, PrefixStore(f"handgrad/{launch.attempt}", store), timeout, has_children=True))
    return current[0]


def opened(host: str, port: int, timeout: float, serves: bool) -> TCPStore:
    """Returns a store, or a client of it; raises an InputError where the port is taken."""
    try:
        return TCPStore(host, port, None, serves, timedelta(seconds=timeout), wait_for_workers=False)
    except RuntimeError as error:
        told = str(error).partition("\n")[0]
        raise InputError(
            f"MASTER_ADDR={host}, MASTER_PORT={port}: no process can meet the others there ({told})"
        ) from error


def reach(host: str, port: int, timeout: float) -> None:
    """Waits until somebody listens; raises an InputError where nobody does in ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, port), timeout=min(timeout, 5)).close()
            return
        except OSError as error:
            if time.monotonic() >= end:
                told = error.strerror or str(error)
                raise InputError(
                    f"MASTER_ADDR={host}, MASTER_PORT={port}: the first process does not answer there in {timeout:g} s "
                    f"({told}; trainer.peer_timeout)"
                ) from error
            time.sleep(POLL)


def leave(line: str = "", number: int = 0) -> str:
    """Ends this process's meeting, if it has one, and returns what ``Meeting.end`` does."""
    return current.pop().end(line, number) if current else ""
