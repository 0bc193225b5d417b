"""Disk full, permission lost and flipped bytes: the old checkpoint loads, and one line says what is wrong."""

import contextlib
import errno
import os
import random
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from handgrad.errors import InputError
from handgrad.runs.checkpoint import WholeCheckpointIO
from tests.torture.trials import state_digest

ENDLESS = ("experiment=report_l2", "l2=[0,0.2,2]", "epochs=1000", "optimizer.momentum=0.9", "lr=0.002")
ENDLESS += ("callbacks.checkpoint.every_seconds=0", "hydra.run.dir=outputs/run")


@contextlib.contextmanager
def small_device(folder: Path, size: str) -> Iterator[Callable[..., None]]:
    """Mounts a file system at ``folder``; lends out what changes its options; skips where that is not allowed."""
    folder.mkdir()

    def mount(*options: str) -> int:
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder], check=False
        ).returncode

    if os.geteuid() != 0 or mount(f"size={size}"):
        pytest.skip("mounting a file system is not allowed here")
    try:
        yield lambda *options: mount("remount", *options)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def assert_one_line(code: int, told: str, *parts: str) -> None:
    """Checks that a program has failed with one line that names what is wrong."""
    errors = [line for line in told.splitlines() if line.startswith("error: ")]
    assert (code, len(errors)) == (1, 1), told
    assert all(part in errors[0] for part in parts), errors
    assert "Traceback" not in told


def assert_whole(run: Path) -> None:
    """Checks that the last checkpoint loads, and that nothing is left of the one that failed."""
    assert WholeCheckpointIO().load_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] > 0
    assert not list(run.rglob("*.tmp"))


@pytest.mark.parametrize("logger", [pytest.param("none", marks=pytest.mark.torture), "tensorboard"])
def test_a_full_disk_and_then_room_again(logger, start, tmp_path):
    """The device holds one checkpoint (290 kB) and not two; with room again the run ends like one never disturbed."""
    words = (*ENDLESS, "epochs=2", f"logger={logger}")
    with small_device(tmp_path / "outputs", "450k") as remount:
        run = tmp_path / "outputs" / "run"
        code, told = start(*words).end()
        assert_one_line(code, told, "No space left on device", "outputs/run")
        assert_whole(run)
        remount("size=50m")
        code, told = start.resume("outputs/run").end()
        assert code == 0, told
        digest = state_digest(run)
    code, told = start(*words).end()
    assert code == 0, told
    assert digest == state_digest(tmp_path / "outputs" / "run")


@pytest.mark.parametrize(("logger", "limit"), [("none", 100_000), ("tensorboard", 10_000)])
def test_a_file_that_must_not_grow(logger, limit, start, tmp_path):
    """The limit on a file's size is how a process without a device of its own meets a full disk."""
    run = tmp_path / "outputs" / "run"
    program = start(*ENDLESS, f"logger={logger}")
    program.wait_until((run / "checkpoints" / "last.ckpt").exists)
    resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    code, told = program.end()
    assert_one_line(code, told, {"none": "last.ckpt: checkpoint", "tensorboard": "tfevents"}[logger])
    assert os.strerror(errno.EFBIG) in told
    assert_whole(run)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[str]:
    """Takes away the permission to write to ``folder``, root's too; lends out what a process is told that tries."""
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield os.strerror(errno.EACCES)
        folder.chmod(0o700)
        return
    if subprocess.run(["mount", "--bind", folder, folder], check=False).returncode:
        pytest.skip("mounting a file system is not allowed here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield os.strerror(errno.EROFS)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_permission_is_lost(start, tmp_path):
    run = tmp_path / "outputs" / "run"
    program = start(*ENDLESS, "logger=none")
    program.wait_until((run / "checkpoints" / "last.ckpt").exists)
    with read_only(run / "checkpoints") as reason:
        assert_one_line(*program.end(), "last.ckpt: checkpoint not saved", reason)
        assert WholeCheckpointIO().load_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] > 0


def test_the_folder_is_taken_away(start, tmp_path):
    checkpoints = tmp_path / "outputs" / "run" / "checkpoints"
    program = start(*ENDLESS, "logger=none")
    program.wait_until((checkpoints / "last.ckpt").exists)
    os.kill(program.process.pid, signal.SIGSTOP)
    kept = checkpoints.rename(checkpoints.with_name("kept"))
    checkpoints.touch()
    os.kill(program.process.pid, signal.SIGCONT)
    assert_one_line(*program.end(), "last.ckpt: checkpoint not saved")
    assert WholeCheckpointIO().load_checkpoint(kept / "last.ckpt")["global_step"] > 0


def test_every_flipped_byte_of_a_runs_checkpoint_is_detected(command, tmp_path):
    """100 of them on loading; 3 of these by the command, too."""
    words = ("experiment=report_l2", "epochs=1", "logger=none", "hydra.run.dir=outputs/run")
    assert command(*words).code == 0
    run = tmp_path / "outputs" / "run"
    (run / "results.csv").unlink()
    path = run / "checkpoints" / "last.ckpt"
    content = path.read_bytes()
    chance = random.Random(0)
    for trial, offset in enumerate(chance.sample(range(len(content)), 100)):
        flipped = bytearray(content)
        flipped[offset] ^= chance.randrange(1, 256)
        path.write_bytes(flipped)
        with pytest.raises(InputError, match="damaged"):
            WholeCheckpointIO().load_checkpoint(path)
        if trial < 3:
            ended = command("resume=outputs/run")
            assert_one_line(ended.code, ended.err, "last.ckpt: damaged, or not a checkpoint of this project")
    path.write_bytes(content)
    assert command("resume=outputs/run").code == 0
