"""Checkpoints are whole or absent, and what is loaded is what was saved."""

import errno
import hashlib
import io
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from handgrad import files
from handgrad.errors import InputError
from handgrad.runs.checkpoint import WholeCheckpointIO
from handgrad.runs.checkpoint_file import MARK

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
        monkeypatch.setattr(files, "open", lambda *args: FullFile(open(*args)), raising=False)  # noqa: SIM115
    else:
        monkeypatch.setattr(os, broken, full)
    with pytest.raises(InputError, match=r"last\.ckpt: checkpoint not saved \(No space left on device\)"):
        WholeCheckpointIO().save_checkpoint({"new": 1}, saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["last.ckpt"]


def test_stale_temporaries_are_swept(saved):
    (saved.parent / ".last.ckpt.12345.tmp").write_bytes(b"of a process that was killed")
    WholeCheckpointIO().save_checkpoint(STATE, saved)
    assert [path.name for path in saved.parent.iterdir()] == ["last.ckpt"]


def test_what_is_no_plain_value_is_saved_as_one_and_compared_as_one(tmp_path):
    settings = {
        "root": Path("data"),
        "digits": range(3),
        "seed": np.int64(3),
        "lr": np.float32(0.5),
        "on": True,
        "no": None,
    }
    path = tmp_path / "last.ckpt"
    WholeCheckpointIO(settings, {"classes": ("a", "b")}).save_checkpoint({}, path)
    about = WholeCheckpointIO(settings, {"classes": ["a", "b"]}).load_checkpoint(path)["handgrad"]
    assert about["settings"] == {"root": "data", "digits": [0, 1, 2], "seed": 3, "lr": 0.5, "on": True, "no": None}
    assert about["data"] == {"classes": ["a", "b"]}


CHANGES = [({"lr": 2}, "lr=2: the run was started with lr=1"), ({}, r"lr=\(absent\): the run was started with lr=1")]
CHANGES += [({"lr": 1, "x": 0}, r"x=0: the run was started with x=\(absent\)")]


@pytest.mark.parametrize(("settings", "line"), CHANGES, ids=str)
def test_a_run_goes_on_with_the_same_settings_only(settings, line, tmp_path):
    WholeCheckpointIO({"lr": 1}).save_checkpoint({}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=line):
        WholeCheckpointIO(settings).load_checkpoint(tmp_path / "last.ckpt")
    assert WholeCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")["handgrad"]["settings"] == {"lr": 1}


def test_a_run_goes_on_with_the_same_data_only(tmp_path):
    WholeCheckpointIO({"lr": 1}, {"classes": (3, 2)}).save_checkpoint({}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=r"classes=\[2, 3\]: the run was started with classes=\[3, 2\]"):
        WholeCheckpointIO({"lr": 1}, {"classes": (2, 3)}).load_checkpoint(tmp_path / "last.ckpt")


def test_a_checkpoint_of_an_earlier_version_is_refused(saved):
    content = torch.load(saved, weights_only=True)
    del content["handgrad"]
    buffer = io.BytesIO()
    torch.save(content, buffer)
    saved.write_bytes(buffer.getvalue() + MARK + hashlib.sha256(buffer.getvalue()).digest())
    with pytest.raises(InputError, match="written by an earlier version of handgrad"):
        WholeCheckpointIO({"lr": 1}).load_checkpoint(saved)
