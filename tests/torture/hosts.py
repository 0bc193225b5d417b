"""Two hosts on one machine: network namespaces, each with a name and an address of its own, and a cable between them.

The files are shared, as those of a cluster are. Root alone may set them up, and not everywhere.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from handgrad.cli.configuration import CONF

DEADLINE = 120.0  # seconds, for whatever a test waits for
TRAIN = str(CONF.parent / "train.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


def ip(*words: str) -> str:
    """Runs ``ip``; raises an OSError or a CalledProcessError where it is refused."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class Program:
    """A program on a host, with what it says in files.

    Attributes:
        pid: of the process that was started.
    """

    def __init__(self, process: subprocess.Popen, out: Path, err: Path) -> None:
        self.process, self.out, self.err = process, out, err

    @property
    def told(self) -> str:
        """What it has said on standard error so far."""
        return self.err.read_text(errors="replace")

    @property
    def lines(self) -> list[str]:
        """The errors that were told."""
        return [line for line in self.told.splitlines() if line.startswith("error: ")]

    def wait(self, seconds: float = DEADLINE) -> int:
        """Returns its exit code."""
        return self.process.wait(seconds)


class Host:
    """One of the two.

    Attributes:
        name: its name for itself; address: by which the other one reaches it.
    """

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
                ["ip", "netns", "exec", self.space, *renamed],
                cwd=self.folder,
                env=kept | environment,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.programs.append(Program(process, *files))
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
    names = [f"hg{os.getpid()}{letter}" for letter in "ab"]
    with contextlib.ExitStack() as stack:
        hosts = []
        for number, name in enumerate(names, 1):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            hosts.append(Host(name, f"host-{name[-1]}", f"10.77.0.{number}", folder))
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
        ended = [program for program in programs if program.process.poll() is not None]
        assert not ended or condition(), ended[0].told
        assert time.monotonic() < last, [program.told for program in programs] or "it took too long"
        time.sleep(0.02)
