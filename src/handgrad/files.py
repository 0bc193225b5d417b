"""Files that are whole or absent, and locks that end with their process."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from handgrad.errors import InputError

NOWHERE = Path(os.devnull) / "nowhere"  # the folder of a run that has none: nothing can be written there
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}  # what file systems say


def replace_file(path: Path, content: bytes) -> None:
    """Writes ``content`` to ``path`` so that at any moment the old file or the whole new one is there.

    Raises:
        OSError: it could not be written; the old file is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Lends out the name of a file beside ``path``, which takes its place when what has been written is whole.

    Raises:
        OSError: it could not be written; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "r+b") as file:  # Windows flushes only what may be written
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if not hasattr(os, "O_DIRECTORY"):
        return  # Windows opens no folder
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def check_inside(folder: Path) -> None:
    """Raises an InputError if a link in ``folder`` leads out of it: what is written by its name would be elsewhere."""
    place = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and place not in path.resolve().parents:
            raise InputError(f"{path}: leads to {path.resolve()}; accepted are links that stay in {folder}")


def remove_stale(folder: Path, name: str = "*") -> None:
    """Removes what killed processes have left of a file ``name``, or of any; for who alone writes there."""
    for stale in folder.glob(f".{name}.*.tmp"):
        stale.unlink(missing_ok=True)


def check_regular(path: Path) -> None:
    """Raises an InputError if something else than a file is at ``path``: who opens a pipe waits for its other end."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: no file, but a folder, a pipe or the like; accepted there is a file, or nothing")


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[bool]:
    """Holds the lock file ``path``, which the process gives up when it ends, however it ends.

    On a file system without locks it holds nothing, and says nothing.

    Args:
        wait: until another process gives it up.

    Yields:
        Whether it is held; false if another process has it.

    Raises:
        InputError: something else than a file is there.
    """
    check_regular(path)
    lock = FileLock(path, timeout=-1 if wait else 0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    try:
        yield True
    finally:
        lock.release()
