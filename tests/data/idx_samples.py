"""Small IDX files, as MNIST's are, and the MD5 of each."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np

NAMES = {"train": "train", "test": "t10k"}


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    """Returns an array as an IDX file."""
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.tobytes()


def images_and_labels(samples: int, classes: int, side: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns images (N, S, S) that are bright where their class is, and labels (N,); both uint8."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(samples) % classes).astype(np.uint8)
    images = generator.integers(0, 120, (samples, side, side), dtype=np.uint8)
    images.reshape(samples, -1)[np.arange(samples), labels] = 255
    return images, labels


def write(folder: Path, packed: bool = True, prefix: str = "", names: dict[str, str] = NAMES, **sets) -> dict[str, str]:
    """Writes the sets, each images and labels, into a folder; returns the MD5 of each file by its name."""
    folder.mkdir(parents=True, exist_ok=True)
    sums = {}
    for name, arrays in sets.items():
        for array, what in zip(arrays, ("images-idx3", "labels-idx1"), strict=True):
            content = gzip.compress(idx(array), mtime=0) if packed else idx(array)
            file = f"{prefix}{names[name]}-{what}-ubyte{'.gz' if packed else ''}"
            (folder / file).write_bytes(content)
            sums[file] = hashlib.md5(content).hexdigest()
    return sums


def write_sums(path: Path, sums: dict[str, str]) -> Path:
    path.write_text("".join(f"{md5}  {name}\n" for name, md5 in sums.items()))
    return path
