"""Sweeps that are stopped in the middle, one after the other and in parallel."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.torture.processes import group_members, launch, read_until

WORDS = ("-m", "experiment=report_logistic", "l2=0,0.1,0.2", "epochs=3", "logger=none")
WORDS += ("callbacks.checkpoint.every_seconds=0", "threads=1", "hydra.sweep.dir=outputs/sweep")
PARALLEL = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


def finished(sweep: Path) -> dict[str, tuple[int, int]]:
    """Returns each finished run of a sweep: its l2, and how to tell whether its results were written again."""
    paths = {re.search("l2=([0-9.]+)", path.parent.name)[1]: path.stat() for path in sweep.glob("*/results.csv")}
    return {l2: (stat.st_mtime_ns, stat.st_ino) for l2, stat in paths.items()}


def training(group: int) -> list[int]:
    """Returns the processes of a group that train the runs of a parallel sweep."""
    return [pid for pid, command in group_members(group).items() if "LokyProcess" in command]


def resume_command(told: str) -> list[str]:
    """Returns the words of the command that a stopped program prints."""
    (command,) = re.findall(r"^  python train\.py (.*)$", told, re.MULTILINE)
    return command.split()


def test_a_stopped_sweep_goes_on_with_what_is_left(start, tmp_path):
    sweep = tmp_path / "outputs" / "sweep"
    program = start(*WORDS)
    program.wait_until(lambda: program.told.exists() and program.told.read_text().count("Training from update 1") == 2)
    os.kill(program.process.pid, signal.SIGTERM)
    code, told = program.end()
    assert code == 143, told
    before = finished(sweep)
    assert set(before) == {"0"}
    assert "Stopped by SIGTERM. Runs of the sweep that have not finished:" in told
    assert [re.search(r"l2=(\S+)", line)[1] for line in told.splitlines() if line.startswith("  experiment")] == [
        "0.1",
        "0.2",
    ]
    words = resume_command(told)
    assert {*WORDS[:4], "resume=true"} <= set(words)
    code, told = start(*words).end()
    assert code == 0, told
    after = finished(sweep)
    assert set(after) == {"0", "0.1", "0.2"}
    assert after["0"] == before["0"]
    assert re.findall(r"Training from update (\d+)", told)[1] == "1"
    assert len(re.findall("Training from update", told)) == 2


@pytest.mark.torture
def test_in_parallel_a_failing_run_is_named_and_the_others_end(tmp_path):
    words = [word.replace("l2=0,0.1,0.2", "l2=0,-1,0.2") for word in WORDS]
    process = launch(tmp_path, *words, *PARALLEL)
    _, told = process.communicate()
    assert process.returncode == 1, told
    assert set(finished(tmp_path / "outputs" / "sweep")) == {"0", "0.2"}
    (named,) = [line for line in told.splitlines() if line.startswith("failed: ")]
    assert "l2=-1: accepted is a number >= 0" in named
    assert "Traceback" not in told


@pytest.mark.torture
def test_in_parallel_failed_is_never_exit_0(tmp_path):
    words = [word.replace("epochs=3", "epochs=1") for word in (*WORDS, *PARALLEL)]
    process = launch(tmp_path, *words)
    _, told = process.communicate()
    assert process.returncode == 0, told
    damaged, other = (next(tmp_path.glob(f"outputs/sweep/*l2={l2},*/results.csv")) for l2 in ("0.1", "0.2"))
    damaged.write_bytes(damaged.read_bytes()[:20])
    other.write_bytes(other.read_bytes().replace(b",sgd,", b",adam,"))
    process = launch(tmp_path, *[word for word in words if "sweep.dir" not in word], "resume=true")
    _, told = process.communicate()
    assert process.returncode == 1, told
    assert len([line for line in told.splitlines() if line.startswith("failed: ")]) == 2


OF_LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="tells processes by /proc")


def under_way(folder: Path, epochs: int, trained: int) -> tuple[subprocess.Popen, str]:
    """Starts a parallel sweep; returns it, and what it has said, when so many of its runs train."""
    process = launch(folder, *[word.replace("epochs=3", f"epochs={epochs}") for word in WORDS], *PARALLEL)
    return process, "".join(read_until(process, "Training from update 1 of") for _ in range(trained))


@pytest.mark.torture
@OF_LINUX
def test_in_parallel_a_killed_run_is_named_and_the_others_end(tmp_path):
    process, told = under_way(tmp_path, 30, 1)
    victim = training(process.pid)[0]
    os.kill(victim, signal.SIGKILL)
    told += process.communicate()[1]
    assert process.returncode == 1, told
    assert "Traceback" not in told
    (named,) = [line for line in told.splitlines() if line.startswith("failed: ")]
    assert named.endswith("its process died (SIGKILL), as it does when memory is short")
    assert len(finished(tmp_path / "outputs" / "sweep")) == 2
    process = launch(tmp_path, *resume_command(told))
    told = process.communicate()[1]
    assert process.returncode == 0, told
    assert set(finished(tmp_path / "outputs" / "sweep")) == {"0", "0.1", "0.2"}


@pytest.mark.torture
@OF_LINUX
def test_in_parallel_nothing_trains_on_when_the_first_process_is_killed(tmp_path):
    process, _ = under_way(tmp_path, 100_000, 2)
    process.kill()
    process.communicate()  # what it started has the same standard error, which ends here with the last of them
    assert training(process.pid) == []
    saved = list(tmp_path.glob("outputs/sweep/*/checkpoints/last.ckpt"))
    assert len(saved) == 2


@pytest.mark.torture
def test_in_parallel_a_stopped_sweep_saves_first(tmp_path):
    process, told = under_way(tmp_path, 100_000, 2)
    process.terminate()
    told += process.communicate()[1]
    assert process.returncode == 143, told
    assert len(list(tmp_path.glob("outputs/sweep/*/checkpoints/last.ckpt"))) == 2
    assert "Traceback" not in told


@pytest.mark.torture
@OF_LINUX
def test_in_parallel_a_stopped_sweep_leaves_no_process_behind(tmp_path):
    process = launch(tmp_path, *[word.replace("epochs=3", "epochs=3000") for word in WORDS], *PARALLEL)
    told = read_until(process, "Training from update 1 of")
    process.terminate()
    told += process.communicate()[1]
    assert process.returncode == 143, told
    assert told.count("  experiment=report_logistic") == 3
    assert {*PARALLEL, "resume=true"} <= set(resume_command(told))
    assert group_members(process.pid) == {}
