"""Arrays in files: what they are called and how large they are, before any is read.

Nothing is unpickled, nothing is unpacked before its size is known to be sound, and only regular files are opened: no
pipe makes the program wait.
"""

import hashlib
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from handgrad.errors import InputError

# An array that is packed to less than a hundredth is refused, unless it is small: sorted labels do pack that well.
LARGEST_RATIO, SMALL_BYTES = 100, 2**26
SAFETENSORS = {
    **{"BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "U16": torch.uint16},
    **{"I32": torch.int32, "U32": torch.uint32, "I64": torch.int64, "U64": torch.uint64},
    **{"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64},
}
NUMBERS = {*SAFETENSORS.values()}
LISTS = "lists of text"


class File:
    """A regular file, which is to stay as it is while it is read.

    Raises:
        InputError: there is no such file, or it is none.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.size, self.changed = self._state()

    def __str__(self) -> str:
        return str(self.path)

    @property
    def kind(self) -> str:
        """The end of its name, like ``.npz``."""
        return self.path.suffix.lower()

    @cached_property
    def sha256(self) -> str:
        with damage(self), open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def check_unchanged(self) -> None:
        """Raises an InputError if the file was written to since it was first seen."""
        if self._state() != (self.size, self.changed):
            raise InputError(f"{self}: it changed while it was read; accepted is a file that nobody writes to")

    def _state(self) -> tuple[int, int]:
        try:
            found = self.path.stat()
        except FileNotFoundError as error:
            raise InputError(f"{self}: no such file") from error
        except (OSError, ValueError) as error:
            raise InputError(f"{self}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
        if stat.S_ISDIR(found.st_mode):
            raise InputError(f"{self}: a folder; accepted is a file, or its shards by a pattern like {self}/*.npy")
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{self}: a pipe or a device; accepted is a regular file")
        return found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class Stored:
    """An array that can be read.

    Attributes:
        shape: as the file tells it.
        kind: ``number``, ``text`` or ``lists of text``; else what it is, in words.
        dtype: the numbers' type; None for anything else.
        read: returns the numbers as a tensor, memory-mapped where the file allows it, text as an array, and lists as
            an array of tuples.
    """

    shape: tuple[int, ...]
    kind: str
    dtype: torch.dtype | None
    read: Callable[[], Any]

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * (self.dtype.itemsize if self.dtype else 1)


@contextmanager
def damage(file: File) -> Iterator[None]:
    """Turns whatever a reader raises into an InputError that names the file: no damage is to end in a traceback."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{file}: there is not enough memory to read it") from error
    except PermissionError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except Exception as error:
        file.check_unchanged()  # what was written meanwhile may look like damage
        told = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"{file}: damaged, or no {file.kind} file ({told[:200]})") from error


def arrays_of(file: File) -> dict[str, Stored]:
    """Returns the arrays of a .npy (one, without a name), .npz, .safetensors or .pt file by name; none is read yet.

    Raises:
        InputError: the file is damaged.
    """
    with damage(file):
        return READERS[file.kind](file)


# --- NumPy ------------------------------------------------------------------------------------------------------------


class Header(NamedTuple):
    """What stands before the numbers of an array in NumPy's format."""

    shape: tuple[int, ...]
    by_column: bool
    dtype: np.dtype
    length: int

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


def numpy_header(file: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        found = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        found = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"version {version} of NumPy's format")
    if any(length < 0 for length in found[0]):
        raise ValueError(f"shape {found[0]}")
    return Header(*found, length=file.tell())


def stored(header: Header, read: Callable[[], np.ndarray]) -> Stored:
    """Returns an array in NumPy's format."""
    dtype = header.dtype
    names = {"c": "complex numbers", "O": "Python objects (pickled, and so never loaded)", "M": "dates", "m": "times"}
    if dtype.kind in "US":
        return Stored(header.shape, "text", None, lambda: as_text(read()))
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        return Stored(header.shape, names.get(dtype.kind, f"{dtype}"), None, read)
    if not dtype.isnative:
        return Stored(header.shape, f"{dtype.name} of another byte order", None, read)
    found = torch.from_numpy(np.empty(0, dtype)).dtype
    return Stored(header.shape, "number", found, lambda: torch.from_numpy(read()))


def as_text(values: np.ndarray) -> np.ndarray:
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values


def numpy_file(file: File) -> dict[str, Stored]:
    with open(file.path, "rb") as opened:
        header = numpy_header(opened)
    if header.dtype.kind != "O" and file.size < header.length + header.bytes:
        expected = header.length + header.bytes
        raise InputError(f"{file}: truncated, found {file.size:,} bytes; its header tells of {expected:,}")

    def read() -> np.ndarray:
        # Copy on write: torch warns of memory that can not be written to. Nothing is ever written.
        with damage(file):
            return np.asarray(np.load(file.path, mmap_mode="c", allow_pickle=False))

    return {"": stored(header, read)}


def numpy_archive(file: File) -> dict[str, Stored]:
    found = {}
    with zipfile.ZipFile(file.path) as archive:
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                with archive.open(info) as member:
                    header = numpy_header(member)
                found[info.filename.removesuffix(".npy")] = stored(header, member_reader(file, info, header))
    return found


def member_reader(file: File, info: zipfile.ZipInfo, header: Header) -> Callable[[], np.ndarray]:
    """Returns what unpacks a member of an archive, after a look at the sizes that are told of it."""

    def read() -> np.ndarray:
        check_unpacked(f"{file}: {info.filename}", header.bytes, info.compress_size)
        with damage(file), zipfile.ZipFile(file.path) as archive, archive.open(info) as member:
            if header.length + header.bytes != info.file_size:
                told = header.length + header.bytes
                raise ValueError(f"{info.filename} has {info.file_size:,} bytes; its header tells of {told:,}")
            return np.lib.format.read_array(member, allow_pickle=False)

    return read


def check_unpacked(name: str, bytes: int, packed: int) -> None:
    """Raises an InputError unless an array may be unpacked: a small file can tell of an array of any size."""
    if bytes > SMALL_BYTES and bytes > LARGEST_RATIO * packed:
        raise InputError(
            f"{name} would grow from {packed:,} to {bytes:,} bytes; accepted is {LARGEST_RATIO} times as much at most"
        )
    check_fits(name, bytes)


def check_fits(name: str, bytes: int) -> None:
    """Raises an InputError if there is not enough memory for what has to be read whole."""
    available = available_memory()
    if available is not None and bytes > available:
        raise InputError(
            f"{name} needs {bytes:,} bytes of memory, available are {available:,}; accepted in place of it are .npy and"
            " .safetensors files, which stay on disk"
        )


def available_memory() -> int | None:
    """Returns the bytes that can be had without swapping; None where the system does not tell."""
    try:
        told = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    return next(
        (int(line.split()[1]) * 1024 for line in told.splitlines() if line.startswith("MemAvailable:")),
        None,
    )


# --- safetensors and torch --------------------------------------------------------------------------------------------


def safetensors_file(file: File) -> dict[str, Stored]:
    found = {}
    with safe_open(file.path, "pt") as opened:
        for name in opened.keys():  # noqa: SIM118, it is no dictionary
            part = opened.get_slice(name)
            dtype = SAFETENSORS.get(part.get_dtype())
            kind = "number" if dtype else f"numbers of type {part.get_dtype()}"
            found[name] = Stored(tuple(part.get_shape()), kind, dtype, tensor_reader(file, name))
    return found


def tensor_reader(file: File, name: str) -> Callable[[], Tensor]:
    def read() -> Tensor:
        with damage(file), safe_open(file.path, "pt") as opened:
            return opened.get_tensor(name)  # mapped

    return read


def torch_file(file: File) -> dict[str, Stored]:
    check_torch_archive(file)
    try:
        loaded = torch.load(file.path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise InputError(f"{file}: holds more than tensors; accepted are a tensor or a dict of tensors") from error
        raise
    values = loaded if isinstance(loaded, Mapping) else {"": loaded}
    return {str(name): torch_value(value) for name, value in values.items()}


def check_torch_archive(file: File) -> None:
    """Raises an InputError unless the archive is as ``torch.save`` writes it: nothing in it is packed."""
    if not zipfile.is_zipfile(file.path):
        raise InputError(f"{file}: damaged, or no file of torch.save since torch 1.6; accepted is one of those")
    with zipfile.ZipFile(file.path) as archive:
        members = archive.infolist()
    if any(info.compress_type != zipfile.ZIP_STORED for info in members) or (
        sum(info.file_size for info in members) > file.size
    ):
        raise InputError(f"{file}: holds packed data; accepted is a file as torch.save writes it")


def torch_value(value: Any) -> Stored:
    """Returns a tensor, or a list of text, of numbers or of lists of text as an array of these."""
    if isinstance(value, list) and {type(item) for item in value} in ({int}, {str}):
        array = np.array(value)
        if array.dtype.kind in "iU":
            return stored(Header(array.shape, False, array.dtype, 0), lambda: array)
    if isinstance(value, list) and value and all(is_list_of_text(item) for item in value):
        return Stored((len(value),), LISTS, None, lambda: np.fromiter(map(tuple, value), dtype=object))
    if not isinstance(value, Tensor):
        return Stored((), f"a Python {type(value).__name__}", None, lambda: value)
    value, shape = value.detach(), tuple(value.shape)
    if value.layout != torch.strided or value.device.type != "cpu":
        return Stored(shape, f"a tensor of layout {value.layout} on {value.device}", None, lambda: value)
    if value.dtype not in NUMBERS:
        kind = "complex numbers" if value.is_complex() else f"numbers of type {value.dtype}"
        return Stored(shape, kind, None, lambda: value)
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return Stored(shape, "a view that repeats its numbers", None, lambda: value)
    return Stored(shape, "number", value.dtype, lambda: value)


def is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


READERS: dict[str, Callable[[File], dict[str, Stored]]] = {
    ".npy": numpy_file,
    ".npz": numpy_archive,
    ".safetensors": safetensors_file,
    ".pt": torch_file,
}
