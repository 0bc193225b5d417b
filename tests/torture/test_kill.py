"""kill -9 at random moments: a run goes on bit for bit, a checkpoint is whole, data files are whole."""

import hashlib
import shutil
import signal
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
import torch

from handgrad.data.mnist_files import PINS
from handgrad.runs.checkpoint import WholeCheckpointIO
from tests.conftest import DATA
from tests.torture import child
from tests.torture.conftest import Program
from tests.torture.faults import begin_anew, faults, kill_at_save, places
from tests.torture.trials import leaves, state_digest, trials

# Chosen so that at any moment of the training something is at stake: l2=5 is best at its first check and soon stops,
# l2=0.2 pauses, improves again and stops later, l2=0 trains to the end; see `test_much_is_at_stake`.
WORDS = ("experiment=report_l2", "l2=[0,0.2,5]", "data.shuffle=true", "patience=3", "epochs=6")
WORDS += ("callbacks.checkpoint.every_seconds=0", "hydra.run.dir=outputs/run")
OPTIMIZERS = {"sgd": ("lr=0.002", "optimizer.momentum=0.9"), "adam": ("optimizer=adam", "lr=0.0005")}
RUN, LAST = Path("outputs") / "run", Path("checkpoints") / "last.ckpt"
SAVE = 19  # of 30 at checks; before it l2=5 has stopped, l2=0.2 waits, and an epoch is in its midst


class Unbroken(NamedTuple):
    """A run that nobody disturbs: what came of it, the seconds that it and its training take, and its updates."""

    run: Path
    digest: str
    seconds: float
    training: float
    updates: int


@pytest.fixture(scope="session")
def begin(server, tmp_path_factory) -> Callable[..., Program]:
    """Starts a run by the named optimizer in a folder of its own."""

    def begin(name: str, **how: Any) -> Program:
        folder = tmp_path_factory.mktemp(name)
        (folder / "data").symlink_to(DATA)
        return Program(server, folder, (*WORDS, *OPTIMIZERS[name], "threads=1"), 0, **how)

    return begin


@pytest.fixture(scope="session")
def unbroken(begin) -> Callable[[str], Unbroken]:
    @cache
    def unbroken(name: str) -> Unbroken:
        began = time.monotonic()
        program = begin(name)
        code, told = program.end()
        assert code == 0, told
        run, seconds = program.told.parent / RUN, time.monotonic() - began
        checkpoint = WholeCheckpointIO().load_checkpoint(run / LAST)
        return Unbroken(run, state_digest(run), seconds, checkpoint["solver"]["seconds"], checkpoint["global_step"])

    return unbroken


@pytest.fixture(scope="session")
def killed(begin) -> Callable[[str, int], Path]:
    """Returns the folder of a run that was killed when it was about to save the checkpoint of this number."""

    @cache
    def killed(name: str, save: int) -> Path:
        program = begin(name, change=partial(kill_at_save, save))
        code, told = program.end()
        assert code == -signal.SIGKILL, told
        return program.told.parent / RUN

    return killed


class Victim:
    """A run that is killed, and goes on, as often as it is told.

    Args:
        start: starts a program in ``folder``.
        words: of the run.
        whole: the same run undisturbed.
        chance: when it is killed.
    """

    def __init__(self, start: Any, folder: Path, words: tuple[str, ...], whole: Unbroken, chance: Random) -> None:
        self.start, self.run, self.words, self.whole, self.chance = start, folder / RUN, words, whole, chance

    @property
    def update(self) -> int:
        """After how many updates its checkpoint was saved; 0: there is none."""
        path = self.run / LAST
        return WholeCheckpointIO().load_checkpoint(path)["global_step"] if path.exists() else 0

    @property
    def in_training(self) -> bool:
        """Whether it has a checkpoint to go on from, and updates left to make."""
        return 0 < self.update < self.whole.updates

    def go_on(self) -> Program:
        return self.start.resume(str(RUN)) if (self.run / LAST).exists() else self.start(*self.words)

    def kill_anywhere(self) -> None:
        """Kills it at any moment from its start to its end."""
        self.go_on().kill_after(self.chance.uniform(0, self.whole.seconds))

    def kill_in_training(self) -> None:
        """Kills it at any moment from its next checkpoint to the end of its training; it may be faster."""
        saved, left = self.saved(), 1 - self.update / self.whole.updates
        program = self.go_on()
        program.wait_until(lambda: self.saved() != saved)
        program.kill_after(self.chance.uniform(0, left * self.whole.training))

    def saved(self) -> int:
        """Returns when the checkpoint was saved; 0: there is none."""
        path = self.run / LAST
        return path.stat().st_mtime_ns if path.exists() else 0

    def end(self) -> None:
        """Lets it go on, from where it stands, to its end, which must be that of the undisturbed run."""
        trains, update = self.in_training, self.update
        code, told = self.go_on().end()
        assert code == 0, told
        assert not trains or f"Training from update {update + 1} of {self.whole.updates}" in told
        assert state_digest(self.run) == self.whole.digest
        assert (self.run / "results.csv").exists()
        assert not list(self.run.rglob("*.tmp"))


@pytest.mark.parametrize("number", trials(2, 50))
def test_a_killed_run_goes_on_bit_for_bit(number, start, tmp_path, unbroken):
    """It is killed at random moments, and again and anew until it was killed in the midst of its training.

    Even trials train by SGD with momentum, odd ones by Adam; every third is killed at any other moment before.
    Two of four train ahead in a second thread, one by each. The unbroken run has one: threads change no bit.
    """
    name = ("sgd", "adam")[number % 2]
    words = (*WORDS, *OPTIMIZERS[name], f"threads={1 + (number + number // 2) % 2}")
    victim = Victim(start, tmp_path, words, unbroken(name), Random(number))
    for _ in range(20):
        if number % 3 == 0:
            victim.kill_anywhere()
        if victim.update < victim.whole.updates:
            victim.kill_in_training()
        hit = victim.in_training
        victim.end()
        if hit:
            return
        shutil.rmtree(victim.run)
    pytest.fail("it was faster than all who tried to kill it")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_much_is_at_stake(name, unbroken, killed):
    """The runs here are such that a fault must show: see ``WORDS`` and ``SAVE``."""
    last = [WholeCheckpointIO().load_checkpoint(run / LAST) for run in (killed(name, SAVE), unbroken(name).run)]
    early, late = (checkpoint["state_dict"] for checkpoint in last)
    assert early["active"].tolist() == [1, 1, 0]
    assert late["active"].tolist() == [1, 0, 0]
    assert early["best_step"][2] == late["best_step"][2] == unbroken(name).updates // 30, "its first check"
    assert 0 < last[0]["callbacks"]["PathEarlyStopping"]["wait"][1] < 3
    assert last[0]["global_step"] % (unbroken(name).updates // 6) != 0, "an epoch is in its midst"


def resumed(start: Any, killed: Path, change: Callable[[], None] | None = None) -> tuple[Path, str]:
    """Lets a copy of a killed run go on to its end, with a ``change``; returns its folder and what was said."""
    folder = start.folder / RUN
    shutil.copytree(killed, folder)
    code, told = start.resume(str(RUN), change).end()
    assert code == 0, told
    return folder, told


def planted() -> list[Any]:
    """Returns each optimizer with each fault.

    The short form has every fourth, and none that both have in common with Adam, nor any of the bias's memory.
    """

    def is_short(name: str, fault: str) -> bool:
        return "memory/bias" not in fault and (name == "sgd" or fault not in faults("sgd"))

    pairs = [(name, fault) for name in OPTIMIZERS for fault in faults(name)]
    short = [pair for pair in pairs if is_short(*pair)][::4]
    return [pytest.param(*pair, marks=() if pair in short else pytest.mark.torture) for pair in pairs]


@pytest.mark.parametrize(
    "save", [SAVE, *(pytest.param(n, marks=pytest.mark.torture) for n in range(2, 33) if n != SAVE)]
)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_killed_when_curves_are_saved_and_its_checkpoint_is_not(name, save, start, unbroken, killed):
    """At every check, at the end of the training and when it saves the best weights: moments hard to hit by chance."""
    assert state_digest(resumed(start, killed(name, save))[0]) == unbroken(name).digest


@pytest.mark.parametrize(("name", "fault"), planted())
def test_a_fault_in_resume_is_seen(name, fault, start, unbroken, killed):
    """Else the trials above would say little."""
    assert state_digest(resumed(start, killed(name, SAVE), faults(name)[fault])[0]) != unbroken(name).digest


def test_a_run_that_begins_anew_tells_so(start, unbroken, killed):
    """It ends like one that goes on, bit for bit: only what it says tells them apart, and the trials look at that."""
    run, told = resumed(start, killed("sgd", SAVE), begin_anew)
    assert f"Training from update 1 of {unbroken('sgd').updates}" in told
    assert state_digest(run) == unbroken("sgd").digest


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_all_that_a_checkpoint_remembers_is_lost_once(name, unbroken):
    """Whoever adds to it adds a fault; only the penalties follow from the run's words."""
    checkpoint = WholeCheckpointIO().load_checkpoint(unbroken(name).run / LAST)
    remembered = {place for place, leaf in leaves(checkpoint) if isinstance(leaf, torch.Tensor)}
    assert remembered == {*places(name), "/state_dict/l2"}


@pytest.mark.parametrize(
    "words", [("epochs=1",), ("epochs=9", "patience=1", "l2=2")], ids=["all epochs", "stopped early"]
)
def test_killed_after_its_last_update_it_still_ends(words, command, tmp_path):
    """There is nothing left to train, and yet the best weights and the results must be written."""
    run = tmp_path / "outputs" / "run"
    assert command("experiment=report_softmax", *words, "hydra.run.dir=outputs/run").code == 0
    digest = state_digest(run)
    (run / "checkpoints" / "best.ckpt").unlink()
    (run / "results.csv").unlink()
    assert command("resume=outputs/run").code == 0
    assert state_digest(run) == digest
    assert (run / "results.csv").exists()


@pytest.mark.parametrize("number", trials(4, 100))
def test_killed_while_it_saves_the_last_checkpoint_loads(number, server, tmp_path):
    """Even trials have their temporary folder on the same device, odd ones on another."""
    chance = Random(number)
    temporary = (tmp_path, Path("/dev/shm"))[number % 2]
    if not temporary.is_dir():
        pytest.skip(f"{temporary} is not there")
    path = tmp_path / "checkpoints" / "last.ckpt"
    ours, theirs = server.Pipe(duplex=False)
    process = server.Process(target=child.save_for_ever, args=(path, temporary, theirs))
    process.start()
    theirs.close()
    assert ours.recv_bytes() == b"saved"
    process.join(chance.uniform(0, 0.05))
    process.kill()
    process.join()
    loaded = WholeCheckpointIO().load_checkpoint(path)
    assert torch.equal(loaded["weight"], torch.full((100_000,), loaded["number"]))
    assert len(list(path.parent.iterdir())) <= 2
    WholeCheckpointIO().save_checkpoint({}, path)
    assert [path.name for path in path.parent.iterdir()] == ["last.ckpt"], "what the killed one left is swept"


@pytest.mark.parametrize("number", trials(2, 30))
def test_the_first_of_several_that_use_the_data_is_killed(number, server, tmp_path):
    chance = Random(number)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for archive in (DATA / "MNIST" / "raw").glob("*.gz"):
        shutil.copy(archive, raw)
    processes = [server.Process(target=child.first_use, args=(tmp_path, tmp_path / f"told{i}")) for i in range(4)]
    for process in processes:
        process.start()
    processes[0].join(chance.uniform(0, 1))
    processes[0].kill()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes[1:]] == [0, 0, 0]
    found = {name: hashlib.sha256((raw / name).read_bytes()).hexdigest() for name in PINS}
    assert found == {name: pin.sha256 for name, pin in PINS.items()}
    assert {path.name for path in raw.iterdir()} == {*PINS, *(f"{name}.gz" for name in PINS), ".lock"}


@pytest.mark.parametrize("number", [4, pytest.param(20, marks=pytest.mark.torture)])
def test_runs_at_the_same_time_have_folders_of_their_own(number, start, tmp_path):
    programs = [start("experiment=report_logistic", "epochs=1") for _ in range(number)]
    for program in programs:
        code, told = program.end()
        assert code == 0, told
    assert len(list(tmp_path.glob("outputs/*/*/results.csv"))) == number
    assert len(list(tmp_path.glob("outputs/*/*/checkpoints/best.ckpt"))) == number
    assert len(list(tmp_path.glob("outputs/*/*"))) == number
