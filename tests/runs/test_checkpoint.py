"""Checkpoints are whole or absent, and what is loaded is what was saved."""

import errno
import os
import random

import pytest
import torch

from handgrad.errors import InputError
from handgrad.runs import checkpoint as checkpoint_io
from handgrad.runs.checkpoint import WholeCheckpointIO

STATE = {"state_dict": {"weight": torch.arange(12.0)}, "epoch": 3}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    WholeCheckpointIO().save_checkpoint(STATE, path)
    return path


def test_what_is_loaded_is_what_was_saved(saved):
    loaded = WholeCheckpointIO().load_checkpoint(saved)
    assert loaded["epoch"] == 3
    assert torch.equal(loaded["state_dict"]["weight"], STATE["state_dict"]["weight"])
    assert torch.load(saved, weights_only=True)["epoch"] == 3, "plain torch.load reads it too"


def test_every_flipped_byte_is_detected(saved):
    content = saved.read_bytes()
    for offset in random.Random(0).sample(range(len(content)), 100):
        saved.write_bytes(content[:offset] + bytes([content[offset] ^ 1 << offset % 8]) + content[offset + 1 :])
        with pytest.raises(InputError, match="damaged"):
            WholeCheckpointIO().load_checkpoint(saved)


@pytest.mark.parametrize("content", [b"", b"PK", b"a" * 1000], ids=["empty", "short", "foreign"])
def test_foreign_files_are_refused(content, tmp_path):
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.ckpt: damaged, or not a checkpoint of this project"):
        WholeCheckpointIO().load_checkpoint(tmp_path / "x.ckpt")


@pytest.mark.parametrize("path", ["http://localhost/x.ckpt", "missing.ckpt"])
def test_only_local_files_are_loaded(path):
    with pytest.raises(InputError, match="no such checkpoint file"):
        WholeCheckpointIO().load_checkpoint(path)


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    WholeCheckpointIO().save_checkpoint({"state_dict": Hostile()}, tmp_path / "x.ckpt")
    with pytest.raises(InputError, match=r"not a checkpoint of this project \(UnpicklingError"):
        WholeCheckpointIO().load_checkpoint(tmp_path / "x.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("broken", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_checkpoint(broken, saved, monkeypatch):
    before = saved.read_bytes()

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class FullFile:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *args):
            self.file.close()

        def write(self, content):
            self.file.write(content[:100])
            full()

    if broken == "write":
        monkeypatch.setattr(checkpoint_io, "open", lambda *args: FullFile(open(*args)), raising=False)  # noqa: SIM115
    else:
        monkeypatch.setattr(checkpoint_io.os, broken, full)
    with pytest.raises(InputError, match=r"last\.ckpt: checkpoint not saved \(No space left on device\)"):
        WholeCheckpointIO().save_checkpoint({"new": 1}, saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["last.ckpt"]


def test_stale_temporaries_are_swept(saved):
    (saved.parent / ".last.ckpt.12345.tmp").write_bytes(b"of a process that was killed")
    WholeCheckpointIO().save_checkpoint(STATE, saved)
    assert [path.name for path in saved.parent.iterdir()] == ["last.ckpt"]
