"""Two hosts train as one, and end together, however they end: a process or the cable between them lost, or a signal."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from handgrad.runs.checkpoint import WholeCheckpointIO
from tests.conftest import DATA
from tests.torture.hosts import TORCHRUN, TRAIN, Forked, Host, Program, are_refused, two_hosts, wait_for
from tests.torture.trials import state_digest, trials

pytestmark = pytest.mark.slow

RUN = Path("outputs") / "run"
LAST = RUN / "checkpoints" / "last.ckpt"
WORDS = ("experiment=report_l2", "l2=[0,0.2,5]", "data.shuffle=true", "patience=3", "epochs=4", "batch_size=127")
WORDS += ("lr=0.002", "optimizer.momentum=0.9", "callbacks.checkpoint.every_seconds=0", "callbacks.figures=null")
EXACT = ("task=logistic", "data.train_size=700", "optimizer=exact", "l2=[0.02,2]", "callbacks.figures=null")
LARGE = ("data.train_size=4000", "optimizer=exact", "optimizer.tolerance=1e-14", "l2=[0.2,2]", "callbacks.figures=null")
BY_TORCHRUN = (1, 2)  # trials
COMMON = ("threads=1", f"hydra.run.dir={RUN}")
KILLED_S, SLACK_S = 15.0, 10.0  # until the other host ends, and beyond trainer.peer_timeout
SHORT = "trainer.peer_timeout=5"
OURS = re.compile(r"^(?!\[?[WE]\d{4} )(error:|Stopp|Loading|Training|Threads)")  # lines that are not torchrun's


class Pair:
    """A run on two hosts.

    Attributes:
        folder: in which both work.
        programs: those that were started last, of each host one.
    """

    def __init__(self, hosts: tuple[Host, Host], folder: Path, server: Any) -> None:
        self.hosts, self.folder, self.server = hosts, folder, server
        self.programs: list[Program] = []

    def torchrun(self, *words: str, each: int = 1, first: str = "") -> None:
        """Starts the run by torchrun, with so many processes on each host; ``first``: the first one's name."""
        address = first or self.hosts[0].address
        for node, host in enumerate(self.hosts):
            place = ("--nnodes", "2", "--node-rank", str(node), "--nproc-per-node", str(each))
            place += ("--master-addr", address, "--master-port", "29500")
            self._start(host, (*TORCHRUN, *place), words)

    def slurm(self, *words: str, restarts: int = 0) -> None:
        """Starts it by the variables that srun sets, one task on each host, with a ``scontrol`` that notes words."""
        for rank, host in enumerate(self.hosts):
            self._start(host, (TORCHRUN[0],), words, **self.step(rank, restarts))

    def forked(self, *words: str, restarts: int = 0) -> None:
        """Does the same without the seconds that imports take."""
        self.programs = [
            host.fork(self.server, (*words, *COMMON), **self.step(rank, restarts))
            for rank, host in enumerate(self.hosts)
        ]

    def step(self, rank: int, restarts: int) -> dict[str, str]:
        """Returns the variables of a task of a job that was started again so often."""
        tools = self.folder / "bin"
        if rank == 0:
            tools.mkdir(exist_ok=True)
            (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {self.folder}/scontrol.txt\n')
            (tools / "scontrol").chmod(0o755)
        step = {"NUM_TASKS": 2, "NUM_NODES": 2, "TASKS_PER_NODE": "1(x2)", "ID": 0}
        found = {f"SLURM_STEP_{name}": str(value) for name, value in step.items()}
        found["SLURM_STEP_NODELIST"] = ",".join(host.address for host in self.hosts)
        found |= {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank), "SLURM_LOCALID": "0", "SLURM_JOB_ID": "77"}
        return found | {"SLURM_RESTART_COUNT": str(restarts), "PATH": f"{tools}:{os.environ['PATH']}"}

    def _start(self, host: Host, launcher: tuple[str, ...], words: tuple[str, ...], **environment: str) -> None:
        self.programs = [program for program in self.programs if program.code is None]
        command = (*launcher, TRAIN, *words, *COMMON)
        self.programs.append(host.start(command, OMP_NUM_THREADS="1", **environment))

    def alone(self, *words: str, place: Path) -> None:
        """Trains by one process, to the end."""
        program = self.hosts[0].fork(self.server, (*words, "threads=1", f"hydra.run.dir={place}"))
        assert program.wait() == 0, program.told

    def has_saved(self) -> bool:
        return (self.folder / LAST).exists()

    def wait_until_it_trains(self, seconds: float) -> None:
        """Waits for the first checkpoint, and a while from then on."""
        wait_for(self.has_saved, self.programs)
        time.sleep(seconds)
        assert all(program.code is None for program in self.programs), "it was faster"

    def process_of(self, node: int) -> int:
        """Returns the process that trains on a host, which is not torchrun's."""
        for process in self.hosts[node].processes():
            command = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
            if b"torch.distributed.run" not in command and b"sh" not in command:
                return process
        raise AssertionError(self.programs[node].told)

    def ended(self) -> list[int]:
        """Waits for the end on both hosts; returns the exit codes."""
        codes = [program.wait() for program in self.programs]
        assert not any(host.processes() for host in self.hosts)
        return codes

    def state(self) -> dict[str, torch.Tensor]:
        return WholeCheckpointIO().load_checkpoint(self.folder / LAST)["state_dict"]


@pytest.fixture(scope="session")
def refused() -> bool:
    return are_refused()


@contextlib.contextmanager
def set_up(folder: Path, server: Any) -> Iterator[Pair]:
    (folder / "data").symlink_to(DATA)
    with two_hosts(folder) as hosts:
        yield Pair(hosts, folder, server)


@pytest.fixture
def pair(refused, server, tmp_path) -> Iterator[Pair]:
    if refused:
        pytest.skip("network namespaces are refused here")
    with set_up(tmp_path, server) as pair:
        yield pair


@pytest.fixture(scope="session")
def unbroken(refused, server, tmp_path_factory) -> Callable[[bool], Path]:
    """Returns the folder of a run on two hosts that nobody disturbs; forked processes have bits of their own."""
    if refused:
        pytest.skip("network namespaces are refused here")

    @cache
    def unbroken(forked: bool) -> Path:
        with set_up(tmp_path_factory.mktemp("unbroken"), server) as pair:
            (pair.forked if forked else pair.torchrun)(*WORDS)
            assert pair.ended() == [0, 0], [program.told for program in pair.programs]
            return pair.folder

    return unbroken


def way(pair: Pair, number: int) -> Callable[..., None]:
    """Returns what starts the run of a trial: torchrun in two of the long form, else what is quicker."""
    return pair.torchrun if number in BY_TORCHRUN else pair.forked


def is_same(pair: Pair, unbroken: Callable[[bool], Path]) -> bool:
    """Tells whether a run ended as one that nobody disturbed, to the bit."""
    whole = unbroken(isinstance(pair.programs[0], Forked))
    return state_digest(pair.folder / RUN) == state_digest(whole / RUN)


def files(run: Path) -> set[str]:
    """Returns the names of a run's files, but of events, of which each start writes one."""
    return {str(path.relative_to(run)) for path in run.rglob("*") if "tfevents" not in path.name}


def goes_on(pair: Pair, unbroken: Callable[[bool], Path], start: Callable[..., None], *words: str) -> None:
    """Repeats the command, and compares what comes of it with the run that nobody disturbed."""
    assert not (pair.folder / RUN / "results.csv").exists()
    start(*WORDS, *words)
    assert pair.ended() == [0, 0], [program.told for program in pair.programs]
    assert is_same(pair, unbroken)
    assert [path.name for path in (pair.folder / "outputs").iterdir()] == ["run"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return WholeCheckpointIO().load_checkpoint(folder / "checkpoints" / "best.ckpt")["state_dict"]


def close(ours: Path, theirs: Path) -> None:
    """Compares weights to 1e-6, and biases to 1e-6 of the largest: they take up what W makes of the features' mean."""
    ours, theirs = weights(ours), weights(theirs)
    for name in ("weight", "bias"):
        size = max(1.0, theirs["bias"].abs().max().item()) if name == "bias" else 1.0
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-6 * size)


def test_two_hosts_train_what_one_process_does(pair, unbroken):
    pair.alone(*WORDS, place=RUN)
    close(unbroken(True) / RUN, pair.folder / RUN)


@pytest.mark.parametrize("words", [EXACT, pytest.param(LARGE, marks=pytest.mark.torture)], ids=["Newton", "L-BFGS"])
def test_two_hosts_find_the_optimum_that_one_process_does(words, pair):
    pair.forked(*words, SHORT)
    assert pair.ended() == [0, 0], [program.told for program in pair.programs]
    pair.alone(*words, place=Path("outputs/one"))
    close(pair.folder / RUN, pair.folder / "outputs" / "one")


@pytest.mark.torture
@pytest.mark.parametrize("each", [1, 2])
def test_all_processes_have_one_folder_and_one_voice(each, pair):
    pair.torchrun("experiment=report_logistic", "epochs=1", SHORT, each=each)
    assert pair.ended() == [0, 0], [program.told for program in pair.programs]
    assert [path.name for path in (pair.folder / "outputs").iterdir()] == ["run"]
    assert len(list(pair.folder.rglob("train.log"))) == len(list((pair.folder / "outputs").rglob(".lock"))) == 1
    assert len(list(pair.folder.rglob("*tfevents*"))) == 1
    first, second = pair.programs
    assert "Training from update 1 of" in first.told
    assert [line for line in second.told.splitlines() if OURS.match(line)] == [], second.told
    assert second.out.read_text() == ""


@pytest.mark.parametrize("number", trials(1, 10))
def test_a_host_is_killed(number, pair, unbroken):
    """Long before ``trainer.peer_timeout``: the system of a killed program closes its connections."""
    way(pair, number)(*WORDS)
    pair.wait_until_it_trains(Random(number).uniform(0, 0.5))
    victim = number % 2
    killed_at = time.monotonic()
    pair.hosts[victim].kill()
    left = pair.programs[1 - victim]
    assert left.wait(KILLED_S) == 1
    assert time.monotonic() - killed_at <= KILLED_S
    assert len(left.lines) == 1, left.told
    assert "lost" in left.lines[0]
    assert "Stopp" not in left.told
    pair.ended()
    goes_on(pair, unbroken, way(pair, number))


@pytest.mark.parametrize("number", trials(1, 5))
def test_the_cable_is_taken_out(number, pair, unbroken):
    way(pair, number)(*WORDS, SHORT)
    pair.wait_until_it_trains(Random(number).uniform(0, 0.5))
    pair.hosts[number % 2].link("down")
    down_at = time.monotonic()
    for program in pair.programs:
        assert program.wait(5 + SLACK_S) == 1
        assert time.monotonic() - down_at <= 5 + SLACK_S
        assert len(program.lines) == 1, program.told
        assert "lost" in program.lines[0]
    pair.ended()
    pair.hosts[number % 2].link("up")
    goes_on(pair, unbroken, way(pair, number), SHORT)


@pytest.mark.parametrize("number", trials(0, 5))
def test_the_cable_is_out_for_5_seconds(number, pair, unbroken):
    way(pair, number)(*WORDS)
    pair.wait_until_it_trains(Random(number).uniform(0, 0.5))
    pair.hosts[number % 2].link("down")
    time.sleep(5)
    pair.hosts[number % 2].link("up")
    assert pair.ended() == [0, 0], [program.told for program in pair.programs]
    assert [program.lines for program in pair.programs] == [[], []]
    assert is_same(pair, unbroken)


@pytest.mark.torture
def test_the_first_hosts_name_may_lead_to_itself_there(pair, unbroken):
    """As /etc/hosts of a Debian has it: gloo is told the cable all the same."""
    first, second = pair.hosts
    for host, address in ((first, "127.0.1.1"), (second, first.address)):
        names = pair.folder / f"hosts-{host.name}"
        names.write_text(f"127.0.0.1 localhost\n{address} {first.name}\n{second.address} {second.name}\n")
        host.prefix = ("sh", "-c", f'mount --bind {names} /etc/hosts && exec "$@"', "sh")
    pair.torchrun(*WORDS, SHORT, first=first.name)
    assert pair.ended() == [0, 0], [program.told for program in pair.programs]
    assert is_same(pair, unbroken)


@pytest.mark.torture
@pytest.mark.parametrize("node", [0, 1])
def test_a_process_that_is_suspended_is_not_lost(node, pair, unbroken):
    pair.forked(*WORDS, "trainer.peer_timeout=20")
    pair.wait_until_it_trains(0.1)
    suspended = pair.process_of(node)
    os.kill(suspended, signal.SIGSTOP)
    time.sleep(8)
    os.kill(suspended, signal.SIGCONT)
    assert pair.ended() == [0, 0], [program.told for program in pair.programs]
    assert is_same(pair, unbroken)


@pytest.mark.parametrize("number", trials(1, 20))
def test_one_process_is_told_to_stop(number, pair, unbroken):
    """In even trials that of the second host, of four in turn by SIGTERM and by SIGUSR1."""
    told = (signal.SIGTERM, signal.SIGUSR1)[number // 2 % 2]
    way(pair, number)(*WORDS, SHORT)
    pair.wait_until_it_trains(Random(number).uniform(0, 0.5))
    os.kill(pair.process_of(1 - number % 2), told)
    assert pair.ended() == ([1, 1] if number in BY_TORCHRUN else [128 + told, 0]), [
        program.told for program in pair.programs
    ]
    first, second = pair.programs
    found = re.search(rf"Stopped by {told.name} after (\d+) updates; all is saved", first.told)
    assert found, first.told
    assert WholeCheckpointIO().load_checkpoint(pair.folder / LAST)["global_step"] == int(found[1])
    assert not first.lines
    assert not [line for line in second.told.splitlines() if OURS.match(line)], second.told
    goes_on(pair, unbroken, way(pair, number), SHORT)


@pytest.mark.parametrize("number", trials(0, 10))
def test_slurm_announces_the_end_of_a_job(number, pair, unbroken):
    start = pair.slurm if number in BY_TORCHRUN else pair.forked
    start(*WORDS, SHORT)
    pair.wait_until_it_trains(Random(number).uniform(0, 0.5))
    os.kill(pair.process_of(1 - number % 2), signal.SIGUSR1)
    assert pair.ended() == [128 + signal.SIGUSR1, 0], [program.told for program in pair.programs]
    assert (pair.folder / "scontrol.txt").read_text() == "requeue 77\n", "once"
    goes_on(pair, unbroken, lambda *words: start(*words, restarts=1), SHORT)
    assert files(pair.folder / RUN) == files(unbroken(True) / RUN)
    assert not list(pair.folder.rglob("*hpc_ckpt*"))
    kept = {"data", "bin", "scontrol.txt", "outputs"}
    assert {path.name for path in pair.folder.iterdir() if not path.name.startswith("host-")} == kept
