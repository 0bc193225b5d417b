"""MNIST's four files on disk: pinned by their SHA-256, and mended from the archives that come with the repository.

Nothing here uses the network. Source of the files: http://yann.lecun.com/exdb/mnist.
"""

import gzip
import hashlib
import logging
from pathlib import Path
from typing import NamedTuple

from handgrad.errors import InputError
from handgrad.files import locked, remove_stale, replace_file

log = logging.getLogger(__name__)


class Pin(NamedTuple):
    """Sizes in bytes and SHA-256 of a file and of the gzip archive it comes from."""

    size: int
    sha256: str
    archive_size: int
    archive_sha256: str


PINS = {
    "train-images-idx3-ubyte": Pin(
        size=47_040_016,
        sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        archive_size=9_912_422,
        archive_sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    "train-labels-idx1-ubyte": Pin(
        size=60_008,
        sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        archive_size=28_881,
        archive_sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    "t10k-images-idx3-ubyte": Pin(
        size=7_840_016,
        sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        archive_size=1_648_877,
        archive_sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    "t10k-labels-idx1-ubyte": Pin(
        size=10_008,
        sha256="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        archive_size=4_542,
        archive_sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
}


def prepare(root: Path) -> None:
    """Makes sure that ``root/MNIST/raw`` holds the four extracted files, byte for byte as pinned.

    A file that is missing or differs is replaced from its archive. Any number of processes may do this at once and
    any of them may be killed: a file is there whole or not at all. Good files are only read, so their folder may be
    read-only and the archives may be gone.

    Raises:
        InputError: an archive that is needed is missing or damaged, or the folder cannot be written.
    """
    raw = Path(root) / "MNIST" / "raw"
    _refuse_legacy_files(raw.with_name("processed"))
    if not _differing(raw):
        return
    if not raw.is_dir():
        raise InputError(f"{raw}: no such folder; accepted is a root whose MNIST/raw holds the four MNIST archives")
    try:
        with locked(raw / ".lock", wait=True):
            remove_stale(raw)
            differing = _differing(raw)  # looked at again: whoever held the lock before may have replaced them
            if not all((raw / name).exists() for name in differing):
                log.info("Unpacking MNIST into %s, once", raw)
            for name in differing:
                _replace(raw, name)
    except OSError as error:
        raise InputError(f"{raw}: MNIST files must be written here, which failed: {error}") from error


def _refuse_legacy_files(processed: Path) -> None:
    """torchvision prefers these, the format of its early versions, over ``raw``; nothing vouches for what they hold."""
    if any((processed / name).exists() for name in ("training.pt", "test.pt")):
        raise InputError(f"{processed}: torchvision would read this instead of the verified files in raw; remove it")


def _differing(raw: Path) -> list[str]:
    return [name for name, pin in PINS.items() if not _matches(raw / name, pin.size, pin.sha256)]


def _matches(path: Path, size: int, sha256: str) -> bool:
    try:
        return path.is_file() and path.stat().st_size == size and _sha256(path) == sha256
    except OSError:  # what cannot be read is replaced like what is damaged
        return False


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _replace(raw: Path, name: str) -> None:
    pin, archive = PINS[name], raw / f"{name}.gz"
    _check_archive(archive, pin)
    if (raw / name).exists():
        log.warning("%s is not MNIST's: replaced by what %s holds", raw / name, archive.name)
    with gzip.open(archive) as packed:
        content = packed.read(pin.size + 1)  # one byte too many is enough to know that it is wrong
    if (len(content), hashlib.sha256(content).hexdigest()) != (pin.size, pin.sha256):
        raise InputError(f"{archive}: does not extract to MNIST's {name}; restore it from git")
    replace_file(raw / name, content)


def _check_archive(archive: Path, pin: Pin) -> None:
    if not archive.is_file():
        raise InputError(f"{archive}: missing, and {archive.stem} must be extracted from it; restore it from git")
    found_size, found = archive.stat().st_size, _sha256(archive)
    if (found_size, found) != (pin.archive_size, pin.archive_sha256):
        raise InputError(
            f"{archive}: damaged, found {found_size} bytes with SHA-256 {found}, expected {pin.archive_size} bytes"
            f" with {pin.archive_sha256}; restore it from git"
        )
