"""Files are whole or absent; locks keep a second holder out, and are given up however the first one ends."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock, SoftFileLock

from handgrad import files
from handgrad.files import NO_LOCKS, locked, remove_stale, replace_file, replacing

OLD = b"the old content"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(OLD)
    return tmp_path / "file"


def fail_with(number: int):
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_file_is_replaced(path):
    replace_file(path, b"")
    assert path.read_bytes() == b""
    replace_file(path, b"\x00new\n")
    assert path.read_bytes() == b"\x00new\n"
    assert os.listdir(path.parent) == ["file"]


def test_folders_are_made(tmp_path):
    replace_file(tmp_path / "a" / "b" / "file", b"new")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"new"


class HalfWritten:
    """A file that takes half of what is written, then the disk is full."""

    def __init__(self, *arguments) -> None:
        self.file = open(*arguments)  # noqa: SIM115

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, content: bytes) -> None:
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_an_error_leaves_the_old_file_and_nothing_else(step, path, monkeypatch):
    if step == "write":
        monkeypatch.setattr(files, "open", HalfWritten, raising=False)
    else:
        monkeypatch.setattr(os, step, fail_with(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left on device") as caught:
        replace_file(path, b"the new content")
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == OLD
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_file_that_is_written_bit_by_bit_is_whole_or_absent(error, path):
    with replacing(path) as temporary:
        temporary.write_bytes(b"half")
        assert path.read_bytes() == OLD
        temporary.write_bytes(b"the whole")
    assert path.read_bytes() == b"the whole"

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"the whole"
    assert os.listdir(path.parent) == ["file"]


def test_an_interruption_leaves_the_old_file_too(path, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace_file(path, b"the new content")
    assert path.read_bytes() == OLD
    assert os.listdir(path.parent) == ["file"]


def test_the_content_is_on_disk_before_its_name_and_the_name_before_the_end(path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        steps.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def watched_replace(source, target) -> None:
        steps.append("replace")
        assert Path(source).read_bytes() == b"new"
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    replace_file(path, b"new")
    assert steps == [path.stat().st_ino, "replace", path.parent.stat().st_ino]


def test_stale_files_are_removed_by_name_or_all(tmp_path):
    for name in (".file.1.tmp", ".file.22.tmp", ".other.1.tmp", "file", ".file.tmp", "file.1.tmp"):
        (tmp_path / name).touch()
    remove_stale(tmp_path, "file")
    assert sorted(os.listdir(tmp_path)) == [".file.tmp", ".other.1.tmp", "file", "file.1.tmp"]
    remove_stale(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".file.tmp", "file", "file.1.tmp"]


def test_a_stale_file_is_one_that_replace_file_leaves(path, monkeypatch):
    monkeypatch.setattr(os, "replace", fail_with(errno.EIO))
    monkeypatch.setattr(Path, "unlink", fail_with(errno.EIO))  # as if the process had been killed
    with pytest.raises(OSError, match="Input/output error"):
        replace_file(path, b"new")
    assert len(os.listdir(path.parent)) == 2
    monkeypatch.undo()
    remove_stale(path.parent, "file")
    assert os.listdir(path.parent) == ["file"]


# --- locks -----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def kept(monkeypatch) -> list[FileLock]:
    """Every lock that is taken: one that nobody knows any more would give itself up."""
    kept = []

    class Kept(FileLock):
        def __init__(self, *arguments, **more) -> None:
            super().__init__(*arguments, **more)
            kept.append(self)

    monkeypatch.setattr(files, "FileLock", Kept)
    return kept


def test_a_second_holder_is_refused_until_the_first_is_done(tmp_path):
    with locked(tmp_path / ".lock") as first:
        assert first is True
        with locked(tmp_path / ".lock") as second:
            assert second is False
        with locked(tmp_path / ".lock") as third:
            assert third is False, "the second one's end gave up the first one's lock"
    with locked(tmp_path / ".lock") as later:
        assert later is True


def test_an_error_gives_the_lock_up(tmp_path):
    with pytest.raises(KeyError, match="of the block"), locked(tmp_path / ".lock"):
        raise KeyError("of the block")
    with locked(tmp_path / ".lock") as held:
        assert held


def test_who_was_refused_may_raise_what_it_likes(tmp_path):
    """Also an error such as a file system without locks would give."""

    def refused() -> None:
        with locked(tmp_path / ".lock") as held:
            assert not held
            raise OSError(errno.ENOLCK, "mine")

    with locked(tmp_path / ".lock"), pytest.raises(OSError, match="mine"):
        refused()


HOLDER = """
import sys
from pathlib import Path
from handgrad.files import locked
with locked(Path(sys.argv[1])) as held:
    print(held, flush=True)
    sys.stdin.read()
"""


def test_another_process_keeps_this_one_out_until_it_is_killed(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout.readline() == b"True\n"
        with locked(tmp_path / ".lock") as held:
            assert held is False
        other.kill()
    with locked(tmp_path / ".lock", wait=True) as held:
        assert held is True


@pytest.mark.parametrize("number", sorted(NO_LOCKS), ids=lambda number: errno.errorcode[number])
def test_without_locks_nothing_is_held_and_nothing_said(number, tmp_path, monkeypatch, capfd, recwarn):
    monkeypatch.setattr(fcntl, "flock", fail_with(number))
    with locked(tmp_path / ".lock") as first, locked(tmp_path / ".lock") as second:
        assert first is second is True
    with pytest.raises(KeyError), locked(tmp_path / ".lock"):
        raise KeyError
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=lambda number: errno.errorcode[number])
def test_other_errors_are_raised(number, tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", fail_with(number))
    with pytest.raises(OSError, match=os.strerror(number)) as caught, locked(tmp_path / ".lock"):
        pytest.fail("the block ran without the lock")
    assert caught.value.errno == number


# --- a system without fcntl, such as Windows -------------------------------------------------------------------------


@pytest.fixture
def windows(monkeypatch):
    """As Windows answers: no folder is opened, nothing is flushed that may not be written, no lock of fcntl's."""
    opened, fsync = os.open, os.fsync

    def no_folders(path, flags: int, *arguments: int, **how: int) -> int:
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, flags, *arguments, **how)

    def written_ones(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        fsync(descriptor)

    monkeypatch.setattr(os, "open", no_folders)
    monkeypatch.setattr(os, "fsync", written_ones)
    monkeypatch.delattr(os, "O_DIRECTORY")
    monkeypatch.setattr(files, "FileLock", SoftFileLock)  # what filelock has where there is no fcntl


def test_files_are_replaced_without_fcntl(windows, path):
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["file"]


def test_a_second_holder_is_kept_out_without_fcntl(windows, tmp_path):
    with locked(tmp_path / ".lock") as held, locked(tmp_path / ".lock") as second:
        assert (held, second) == (True, False)
    with locked(tmp_path / ".lock") as held:
        assert held
