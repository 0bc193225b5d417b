"""A checkpoint's file is read without Lightning; what WholeCheckpointIO makes of it: tests/runs/test_checkpoint.py."""

import io

import pytest
import torch

from handgrad.errors import InputError
from handgrad.runs.checkpoint_file import read_checkpoint, sealed


def test_what_is_read_is_what_was_sealed(tmp_path):
    (tmp_path / "x.ckpt").write_bytes(sealed({"epoch": 3, "weight": torch.arange(3)}))
    found = read_checkpoint(tmp_path / "x.ckpt")
    assert found["epoch"] == 3
    assert found["weight"].tolist() == [0, 1, 2]
    assert torch.load(io.BytesIO(sealed({"epoch": 3})), weights_only=True) == {"epoch": 3}


def test_a_file_without_the_checksum_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "x.ckpt")
    with pytest.raises(InputError, match=r"x\.ckpt: damaged, or not a checkpoint of this project"):
        read_checkpoint(tmp_path / "x.ckpt")
