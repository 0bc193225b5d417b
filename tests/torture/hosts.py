"""Two hosts on one machine: network namespaces, each with a name and an address of its own, and a cable between them.

The files are shared, as those of a cluster are. Root alone may set them up, and not everywhere.
"""

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from handgrad.cli.configuration import CONF
from tests.torture import child

DEADLINE = 300.0  # seconds, for whatever a test waits for
PREFIX = "hg"  # of the namespaces' names, before the id of the process that has made them
pairs = itertools.count()
TRAIN = str(CONF.parent / "train.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


def ip(*words: str) -> str:
    """Runs ``ip``; raises an OSError or a CalledProcessError where it is refused."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class Program:
    """A program on a host, with what it says in files."""

    def __init__(self, process: Any, out: Path, err: Path) -> None:
        self.process, self.out, self.err = process, out, err

    @property
    def told(self) -> str:
        """What it has said on standard error so far."""
        return self.err.read_text(errors="replace")

    @property
    def lines(self) -> list[str]:
        """The errors that were told."""
        return [line for line in self.told.splitlines() if line.startswith("error: ")]

    @property
    def code(self) -> int | None:
        """Its exit code; None: it has not ended."""
        return self.process.poll()

    def wait(self, seconds: float = DEADLINE) -> int:
        """Waits for its end; returns its exit code."""
        return self.process.wait(seconds)


class Forked(Program):
    """The same as a process of ``multiprocessing``."""

    @property
    def code(self) -> int | None:
        return self.process.exitcode

    def wait(self, seconds: float = DEADLINE) -> int:
        self.process.join(seconds)
        assert self.code is not None, self.told
        return self.code


class Host:
    """One of the two.

    Attributes:
        name: its name for itself; address: by which the other one reaches it.
        prefix: of every command.
    """

    prefix: tuple[str, ...] = ()

    def __init__(self, space: str, name: str, address: str, folder: Path) -> None:
        self.space, self.name, self.address, self.folder = space, name, address, folder
        self.programs: list[Program] = []

    def start(self, command: Sequence[str], **environment: str) -> Program:
        """Starts a program in the shared folder."""
        renamed = ["unshare", "--uts", "sh", "-c", f'hostname {self.name} && exec "$@"', "sh", *command]
        files = [self.folder / f"{self.name}{len(self.programs)}.{stream}" for stream in ("out", "err")]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "PL_"))}
        with contextlib.ExitStack() as stack:
            out, err = (stack.enter_context(open(file, "wb")) for file in files)
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.space, *self.prefix, *renamed],
                cwd=self.folder,
                env=kept | environment,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.programs.append(Program(process, *files))
        return self.programs[-1]

    def fork(self, server: Any, words: Sequence[str], **environment: str) -> Program:
        """Starts ``train.py`` there without the seconds that imports take."""
        told = self.folder / f"{self.name}{len(self.programs)}.err"
        told.touch()
        target = partial(child.program_on_host, self.space, self.name)
        process = server.Process(target=target, args=(self.folder, words, told, environment))
        process.start()
        self.programs.append(Forked(process, told, told))
        return self.programs[-1]

    def processes(self) -> list[int]:
        """Returns all that run there, those that were started first."""
        return sorted(map(int, ip("netns", "pids", self.space).split()))

    def kill(self) -> None:
        """Kills all that runs there, as nearly at once as can be had."""
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)

    def link(self, state: str) -> None:
        """Takes the cable out, ``down``, or puts it in again, ``up``."""
        ip("-n", self.space, "link", "set", "cable", state)


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """Sets up two hosts, which work in ``folder``; nothing is left of them afterwards.

    Raises:
        OSError, CalledProcessError: it is refused here.
    """
    sweep()
    number = next(pairs)
    names = [f"{PREFIX}{os.getpid()}-{number}{letter}" for letter in "ab"]
    with contextlib.ExitStack() as stack:
        hosts = []
        for number, name in enumerate(names, 1):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            hosts.append(Host(name, f"host-{name[-1]}", f"192.168.77.{number}", folder))
            stack.callback(end, hosts[-1])
        ip("-n", names[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names[1])
        for host in hosts:
            ip("-n", host.space, "address", "add", f"{host.address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                ip("-n", host.space, "link", "set", device, "up")
        yield hosts[0], hosts[1]


def end(host: Host) -> None:
    """Ends all that is left on a host."""
    host.kill()
    for program in host.programs:
        program.wait()


def sweep() -> None:
    """Takes down what tests have left that were killed themselves."""
    for space in re.findall(rf"^({PREFIX}(\d+)-\d+[ab])\b", ip("netns", "list"), re.MULTILINE):
        if not Path(f"/proc/{space[1]}").exists():
            Host(space[0], "", "", Path()).kill()
            ip("netns", "del", space[0])


def are_refused() -> bool:
    """Tells whether there can be no such hosts here."""
    if not (hasattr(os, "geteuid") and os.geteuid() == 0 and all(map(shutil.which, ("ip", "unshare", "hostname")))):
        return True
    try:
        with two_hosts(Path.cwd()):
            return False
    except (OSError, subprocess.CalledProcessError):
        return True


def wait_for(condition: Callable[[], object], programs: Sequence[Program] = (), seconds: float = DEADLINE) -> None:
    """Waits until a condition holds; fails when it takes too long, or one of the programs ends before."""
    last = time.monotonic() + seconds
    while not condition():
        ended = [program for program in programs if program.code is not None]
        assert not ended or condition(), ended[0].told
        assert time.monotonic() < last, [program.told for program in programs] or "it took too long"
        time.sleep(0.02)
