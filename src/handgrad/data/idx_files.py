"""IDX files, the format of MNIST: an array of bytes behind a header that tells its shape; packed by gzip or not.

Nothing here uses the network. Source of the format: http://yann.lecun.com/exdb/mnist.
"""

import gzip
import hashlib
import re
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from handgrad.data.array_files import File, damage
from handgrad.errors import InputError

SCALING = "pixel / 127.5 - 1"
UNSIGNED_BYTES = 8  # the type's number
LARGEST_RATIO = 1032  # gzip packs nothing closer
SUM = re.compile(r"(?P<md5>[0-9a-f]{32}) [ *](?P<name>.+)|MD5 \((?P<bsd_name>.+)\) = (?P<bsd_md5>[0-9a-f]{32})", re.I)


class IDXFile(File):
    """An IDX file of unsigned bytes, of which the header is read at once.

    Args:
        path: the file, whose name ends in ``.gz`` if it is packed.
        md5: of the whole file as it lies there; None: nothing vouches for it.

    Attributes:
        shape: of its array, from the header.

    Raises:
        InputError: there is no such file, it has another MD5, or it is no IDX file of unsigned bytes.
    """

    def __init__(self, path: str | Path, md5: str | None = None) -> None:
        super().__init__(path)
        if md5 is not None and (found := self.md5()) != md5.lower():
            raise InputError(f"{self}: damaged, or another file: found MD5 {found}, expected {md5.lower()}")
        with damage(self), self._open() as file:
            self.shape = self._header(file)

    @property
    def kind(self) -> str:
        return "IDX"

    def md5(self) -> str:
        with damage(self), open(self.path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

    def read(self) -> Tensor:
        """Returns the array, uint8 of ``shape``; raises an InputError unless the file holds it and nothing else."""
        size = prod(self.shape)
        with damage(self), self._open() as file:
            self._header(file)
            content = file.read(size + 1)  # one byte too many is enough to know that it is wrong
        self.check_unchanged()
        if len(content) != size:
            more = "more" if len(content) > size else len(content)
            raise InputError(f"{self}: damaged: its header tells {self.shape}, {size} bytes, and {more} follow")
        return torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(self.shape)

    def _open(self) -> IO[bytes]:
        packed = self.path.suffix == ".gz"
        return gzip.open(self.path) if packed else open(self.path, "rb")  # type: ignore[return-value]

    def _header(self, file: IO[bytes]) -> tuple[int, ...]:
        zeros, kind, axes = struct.unpack(">HBB", file.read(4))
        if zeros or not axes:
            raise ValueError("it does not begin as one")
        if kind != UNSIGNED_BYTES:
            raise InputError(f"{self}: numbers of IDX type {kind:#04x}; accepted are unsigned bytes, 0x08")
        shape = struct.unpack(f">{axes}I", file.read(4 * axes))
        if not 0 < prod(shape) <= LARGEST_RATIO * self.size:
            raise ValueError(f"a header tells {shape}, and the file has {self.size} bytes")
        return shape


def scaled(pixels: Tensor) -> Tensor:
    """Returns ``pixels`` (N, *) of bytes as features (N, D) float32 in [-1, 1]."""
    return pixels.flatten(1).to(torch.float32).div_(127.5).sub_(1)


def md5_sums(path: str | Path) -> dict[str, str]:
    """Returns the MD5 of files by their names, from a file such as ``md5sum`` or macOS's ``md5`` writes.

    Raises:
        InputError: there is no such file, or a line is something else.
    """
    file, sums = File(path), {}
    try:
        lines = file.path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error}); accepted is a file as md5sum writes it") from error
    for number, line in enumerate(lines, 1):
        if not (found := SUM.fullmatch(line.strip())):
            raise InputError(f"{file}: line {number} is {line[:80]!r}; accepted are lines as md5sum writes them")
        sums[Path(found["name"] or found["bsd_name"]).name] = found["md5"] or found["bsd_md5"]
    return sums


def md5_of(name: str, sums: Mapping[str, str] | None, source: str | Path | None) -> str | None:
    """Returns the MD5 that a file of this name is to have; None if there are no sums.

    Raises:
        InputError: the sums, which are from ``source``, have none of it.
    """
    if sums is not None and name not in sums:
        raise InputError(f"{source}: no MD5 of {name}; accepted is a file as md5sum writes it that has each file read")
    return None if sums is None else sums[name]
