"""The files on disk: whatever has happened to them, they are right afterwards or the error says what to do."""

import errno
import fcntl
import gzip
import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from handgrad import files
from handgrad.data import mnist_files
from handgrad.data.mnist_files import PINS, Pin, prepare
from handgrad.errors import InputError

REPOSITORY = Path(__file__).parents[2]
CONTENTS = {"images": bytes(range(256)) * 300, "labels": b"0123456789" * 7}


def pin_of(content: bytes, archive: bytes) -> Pin:
    return Pin(len(content), hashlib.sha256(content).hexdigest(), len(archive), hashlib.sha256(archive).hexdigest())


@pytest.fixture
def raw(tmp_path, monkeypatch) -> Path:
    """The raw folder of ``tmp_path``, which holds two small archives that are pinned in place of MNIST's."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    archives = {name: gzip.compress(content, mtime=0) for name, content in CONTENTS.items()}
    for name, archive in archives.items():
        (folder / f"{name}.gz").write_bytes(archive)
    pins = {name: pin_of(content, archives[name]) for name, content in CONTENTS.items()}
    monkeypatch.setattr(mnist_files, "PINS", pins)
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def assert_whole(folder: Path) -> None:
    assert {name: (folder / name).read_bytes() for name in CONTENTS} == CONTENTS
    assert not list(folder.glob(".*.tmp"))


def refuse_writing(monkeypatch) -> None:
    """What a read-only file system answers; permission bits would not stop a test that runs as root."""

    opening = os.open

    def read_only_open(path, flags, *args, **kwargs):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opening(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", read_only_open)
    monkeypatch.setattr(files, "open", lambda path, mode: read_only_open(path, os.O_RDWR), raising=False)


@pytest.mark.parametrize("name", PINS)
def test_the_pins_are_those_of_the_archives_in_the_repository(name):
    archive = (REPOSITORY / "data/MNIST/raw" / f"{name}.gz").read_bytes()
    assert PINS[name] == pin_of(gzip.decompress(archive), archive)


def test_extracts_all_files_with_ordinary_permissions(tmp_path, raw, caplog):
    with caplog.at_level(logging.INFO):
        prepare(tmp_path)
        prepare(tmp_path)
    assert caplog.messages == [f"Unpacking MNIST into {raw}, once"]
    assert_whole(raw)
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert (raw / "images").stat().st_mode == ordinary.stat().st_mode


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "flipped bit": flip,
    "truncated": lambda path: os.truncate(path, 41),
    "trailing byte": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "empty": lambda path: os.truncate(path, 0),
    "missing": Path.unlink,
    "link to nothing": lambda path: (path.unlink(), path.symlink_to("nowhere")),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_replaces_a_damaged_file_and_only_that(kind, tmp_path, raw, caplog):
    prepare(tmp_path)
    caplog.clear()
    good = (raw / "labels").stat()
    DAMAGE[kind](raw / "images")
    with caplog.at_level(logging.INFO):
        prepare(tmp_path)
    assert_whole(raw)
    assert (raw / "labels").stat().st_ino == good.st_ino
    is_gone = kind in ("missing", "link to nothing")
    told = f"Unpacking MNIST into {raw}, once" if is_gone else f"{raw / 'images'} is not MNIST's: replaced by what"
    assert [message[: len(told)] for message in caplog.messages] == [told]


def test_good_files_need_no_archives_and_no_writing(tmp_path, raw, monkeypatch):
    prepare(tmp_path)
    for path in [*raw.glob("*.gz"), raw / ".lock"]:
        path.unlink()
    refuse_writing(monkeypatch)
    prepare(tmp_path)
    assert {path.name for path in raw.iterdir()} == set(CONTENTS)


def test_a_read_only_folder_is_named(tmp_path, raw, monkeypatch):
    refuse_writing(monkeypatch)
    with pytest.raises(InputError, match=r"^.*MNIST/raw: .*Read-only file system") as error:
        prepare(tmp_path)
    assert "\n" not in str(error.value)


def test_a_full_disk_leaves_nothing_behind(tmp_path, raw, monkeypatch):
    def no_space(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(InputError, match="No space left"):
        prepare(tmp_path)
    assert names(raw) == {"images.gz", "labels.gz"}


def test_a_damaged_archive_is_named_with_both_hashes(tmp_path, raw):
    flip(raw / "images.gz")
    found = hashlib.sha256((raw / "images.gz").read_bytes()).hexdigest()
    expected = mnist_files.PINS["images"].archive_sha256
    with pytest.raises(InputError, match=rf"images\.gz: .*{found}.*{expected}.*restore it from git") as error:
        prepare(tmp_path)
    assert "\n" not in str(error.value)
    assert names(raw) == {"images.gz", "labels.gz"}


def test_a_missing_archive_is_named(tmp_path, raw):
    (raw / "labels.gz").unlink()
    with pytest.raises(InputError, match=r"labels\.gz: missing.*restore it from git"):
        prepare(tmp_path)
    assert names(raw) == {"images.gz", "images"}


def test_an_archive_that_inflates_to_more_is_read_no_further_than_needed(tmp_path, raw, monkeypatch):
    bomb = gzip.compress(bytes(10_000_000), mtime=0)
    (raw / "labels.gz").write_bytes(bomb)
    pinned = mnist_files.PINS["labels"]._replace(
        archive_size=len(bomb), archive_sha256=hashlib.sha256(bomb).hexdigest()
    )
    monkeypatch.setitem(mnist_files.PINS, "labels", pinned)
    read, inflated = gzip.GzipFile.read, []

    def watched(self, size=-1):
        inflated.append(read(self, size))
        return inflated[-1]

    monkeypatch.setattr(gzip.GzipFile, "read", watched)
    with pytest.raises(InputError, match=r"labels\.gz: does not extract"):
        prepare(tmp_path)
    assert len(inflated[-1]) == len(CONTENTS["labels"]) + 1
    assert names(raw) == {"images.gz", "labels.gz", "images"}


def test_a_folder_that_is_not_there_is_named(tmp_path, raw):
    with pytest.raises(InputError, match=r"elsewhere/MNIST/raw: no such folder"):
        prepare(tmp_path / "elsewhere")


@pytest.mark.parametrize("name", ["training.pt", "test.pt"])
def test_files_that_torchvision_would_prefer_unverified_are_refused(name, tmp_path, raw):
    processed = tmp_path / "MNIST" / "processed"
    processed.mkdir()
    (processed / name).touch()
    with pytest.raises(InputError, match=r"processed: .*remove it"):
        prepare(tmp_path)


EXTRACT = """
import json, os, sys
from handgrad import files
from handgrad.data import mnist_files
mnist_files.PINS = {name: mnist_files.Pin(*pin) for name, pin in json.loads(sys.argv[2]).items()}
if sys.argv[3] == "stop half-way":
    os.fsync = lambda descriptor: (print("half-way", flush=True), sys.stdin.read())
mnist_files.prepare(sys.argv[1])
"""


def extract(root: Path, how: str) -> subprocess.Popen:
    command = [sys.executable, "-c", EXTRACT, str(root), json.dumps(mnist_files.PINS), how]
    return subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_processes_extract_at_once_and_one_is_killed(tmp_path, raw):
    with extract(tmp_path, "stop half-way") as victim:
        assert victim.stdout.readline() == "half-way\n"
        with extract(tmp_path, "whole") as second, extract(tmp_path, "whole") as third:
            assert len(list(raw.glob(".*.tmp"))) == 1  # the victim holds the lock: nobody else writes
            assert not names(raw) & set(CONTENTS)
            victim.kill()
            assert (second.wait(), third.wait()) == (0, 0)
    assert_whole(raw)


def test_nothing_is_touched_without_the_lock(tmp_path, raw, monkeypatch):
    (raw / ".images.0123.tmp").write_bytes(b"another process is writing this")
    with open(raw / ".lock", "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        def wait(seconds):
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))

        monkeypatch.setattr(time, "sleep", wait)
        with pytest.raises(InputError, match=os.strerror(errno.EWOULDBLOCK)):
            prepare(tmp_path)
    assert names(raw) == {"images.gz", "labels.gz", ".images.0123.tmp"}


def test_temporary_files_of_killed_processes_are_swept(tmp_path, raw):
    (raw / ".images.0123.tmp").write_bytes(b"half")
    prepare(tmp_path)
    assert_whole(raw)
