"""Damaged data files, end to end: mended from the archives where these are there, else one line, exit code 1."""

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from handgrad.data.mnist_files import PINS
from tests.conftest import DATA

LABELS, IMAGES = "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"
FLAGS = os.O_RDWR | os.O_CREAT | os.O_TRUNC  # of open(path, "wb")
WORDS = ("experiment=report_logistic", "epochs=1", "logger=none")


def header(*numbers: int) -> Callable[[bytes], bytes]:
    """Returns what replaces the numbers at a file's start: magic, count, and an image's rows and columns."""
    return lambda content: struct.pack(f">{len(numbers)}I", *numbers) + content[4 * len(numbers) :]


DAMAGE = {
    "truncated": (LABELS, lambda content: content[:-1]),
    "header only": (LABELS, lambda content: content[:8]),
    "trailing byte": (LABELS, lambda content: content + b"\0"),
    "empty": (LABELS, lambda content: b""),
    "wrong magic": (LABELS, header(2051)),
    "count too large": (LABELS, header(2049, 60_001)),
    "count too small": (LABELS, header(2049, 59_999)),
    "count is zero": (LABELS, header(2049, 0)),
    "count is -1": (LABELS, header(2049, 0xFFFFFFFF)),
    "label 10": (LABELS, lambda content: content[:-1] + b"\x0a"),
    "label 255": (LABELS, lambda content: content[:-1] + b"\xff"),
    "other label": (LABELS, lambda content: content[:-1] + bytes([content[-1] ^ 1])),
    "HTML": (LABELS, lambda content: b"<!DOCTYPE html><title>404</title>"),
    "still packed": (LABELS, gzip.compress),
    "images of 27 rows": (IMAGES, header(2051, 10_000, 27, 28)),
    "images truncated": (IMAGES, lambda content: content[: len(content) // 2]),
    "other pixel": (IMAGES, lambda content: content[:-1] + b"\1"),
}


@pytest.fixture
def raw(command, tmp_path) -> Path:
    """A data folder whose files are the real ones; a test replaces some."""
    (tmp_path / "data").unlink()
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in PINS:
        for file in (name, f"{name}.gz"):
            (folder / file).symlink_to(DATA / "MNIST" / "raw" / file)
    return folder


def damage(path: Path, change: Callable[[bytes], bytes]) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(change(content))


def assert_refused(ended, *parts: str) -> None:
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert (ended.code, len(errors)) == (1, 1), ended.err
    assert all(part in errors[0] for part in parts), errors
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(("name", "change"), DAMAGE.values(), ids=DAMAGE)
def test_damage_without_an_archive_is_told(name, change, raw, command):
    damage(raw / name, change)
    (raw / f"{name}.gz").unlink()
    assert_refused(command(*WORDS), f"{name}.gz: missing", "restore it from git")


@pytest.mark.parametrize("name", [LABELS, IMAGES])
def test_damage_is_mended_from_the_archive(name, raw, command):
    damage(raw / name, lambda content: content[:100])
    assert command(*WORDS).code == 0
    assert (raw / name).read_bytes() == (DATA / "MNIST" / "raw" / name).read_bytes()


@pytest.mark.parametrize(
    "change", [lambda content: content[:-9], lambda content: b"", gzip.compress], ids=["cut", "empty", "packed twice"]
)
def test_a_damaged_archive_is_told(change, raw, command):
    (raw / LABELS).unlink()
    damage(raw / f"{LABELS}.gz", change)
    assert_refused(command(*WORDS), f"{LABELS}.gz: damaged, found", "restore it from git")


def test_a_missing_folder_is_told(raw, command, tmp_path):
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    assert_refused(command(*WORDS), "data/MNIST/raw: no such folder")
    assert_refused(command(*WORDS, "data.root=nowhere"), "nowhere/MNIST/raw: no such folder")
    assert command(*WORDS, "data.root=elsewhere").code == 0


def test_a_file_that_is_a_folder_is_told(raw, command):
    (raw / LABELS).unlink()
    (raw / LABELS).mkdir()
    assert_refused(command(*WORDS), LABELS)


def test_a_read_only_folder_is_told_when_it_must_be_written(raw, command, monkeypatch):
    """Good files are read from it all the same. Permission bits would not stop a test that runs as root."""
    opening = os.open

    def read_only(path, flags, *args, **kwargs):
        if flags & (os.O_WRONLY | os.O_RDWR) and Path(path).parent.resolve() == raw.resolve():
            raise PermissionError(13, os.strerror(13), str(path))
        return opening(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", read_only)
    monkeypatch.setattr(
        "handgrad.files.open", lambda path, mode: os.fdopen(read_only(path, FLAGS), mode), raising=False
    )
    assert command(*WORDS).code == 0
    (raw / LABELS).unlink()
    assert_refused(command(*WORDS), "data/MNIST/raw: MNIST files must be written here", "Permission denied")
