"""kill -9 at random moments: a run goes on bit for bit, a checkpoint is whole, data files are whole."""

import hashlib
import random
import shutil
import time
from pathlib import Path

import pytest
import torch

from handgrad.data.mnist_files import PINS
from handgrad.runs.checkpoint import WholeCheckpointIO
from tests.conftest import DATA
from tests.torture import child
from tests.torture.conftest import Program
from tests.torture.trials import state_digest, trials

WORDS = ("experiment=report_l2", "l2=[0,0.2,2]", "data.shuffle=true", "patience=6", "epochs=6")
WORDS += ("callbacks.checkpoint.every_seconds=0",)
OPTIMIZERS = {"sgd": ("lr=0.002", "optimizer.momentum=0.9"), "adam": ("optimizer=adam", "lr=0.0005")}


@pytest.fixture(scope="session")
def unbroken(server, tmp_path_factory) -> dict[str, tuple[str, float]]:
    """For each optimizer: the digest of a run that nobody disturbs, and the seconds that it takes."""
    found = {}
    for name, words in OPTIMIZERS.items():
        folder = tmp_path_factory.mktemp(name)
        (folder / "data").symlink_to(DATA)
        began = time.monotonic()
        program = Program(server, folder, (*WORDS, *words, "threads=1", "hydra.run.dir=outputs/run"), 0)
        code, told = program.end()
        assert code == 0, told
        found[name] = state_digest(folder / "outputs/run"), time.monotonic() - began
    return found


@pytest.mark.parametrize("number", trials(6, 50))
def test_a_killed_run_goes_on_bit_for_bit(number, start, tmp_path, unbroken):
    """Even trials train by SGD with momentum, odd ones by Adam; every third is killed a second time.

    Every other two train ahead in a second thread. The unbroken run has one: threads change no bit.
    """
    chance = random.Random(number)
    name = ("sgd", "adam")[number % 2]
    digest, seconds = unbroken[name]
    run = tmp_path / "outputs" / "run"

    def program():
        if (run / "checkpoints" / "last.ckpt").exists():
            return start.resume("outputs/run")
        threads = f"threads={1 + number // 2 % 2}"
        return start(*WORDS, *OPTIMIZERS[name], threads, "hydra.run.dir=outputs/run")

    while not (victim := program()).kill_after(chance.uniform(0, seconds)):
        code, told = victim.end()
        assert code == 0, told
        shutil.rmtree(run)  # it was faster
    if number % 3 == 0:
        program().kill_after(chance.uniform(0, seconds))
    code, told = program().end()
    assert code == 0, told
    assert state_digest(run) == digest
    assert (run / "results.csv").exists()
    assert not list(run.rglob("*.tmp"))


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


@pytest.mark.parametrize("number", trials(10, 100))
def test_killed_while_it_saves_the_last_checkpoint_loads(number, server, tmp_path):
    """Even trials have their temporary folder on the same device, odd ones on another."""
    chance = random.Random(number)
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


@pytest.mark.parametrize("number", trials(3, 30))
def test_the_first_of_several_that_use_the_data_is_killed(number, server, tmp_path):
    chance = random.Random(number)
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
