"""Files of features for tests: the same numbers in each format."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_wine

from handgrad.data.features import FeatureDataModule

WINE = load_wine()
FEATURES, LABELS = WINE.data, WINE.target  # (178, 13) float64, and (178,) in three classes
NAMES = np.array(["barolo", "grignolino", "barbera"])[LABELS]


def data_of(**given: Any) -> FeatureDataModule:
    """Returns a data module from what differs from the defaults."""
    defaults = dict(holdout=0.1, normalize="none", shuffle=True, batch_size=8, seed=0, epochs=2)
    return FeatureDataModule(**defaults | given)


def columns(x: np.ndarray, y: np.ndarray, names: Sequence[str] = WINE.feature_names) -> pa.Table:
    return pa.table({name: x[:, place] for place, name in enumerate(names)} | {"y": y})


def write_npy(path: Path, x: np.ndarray, y: np.ndarray) -> dict[str, Path]:
    np.save(path.with_suffix(".npy"), x)
    np.save(path.with_suffix(".labels.npy"), y)
    return {"train": path.with_suffix(".npy"), "train_labels": path.with_suffix(".labels.npy")}


def write_npz(path: Path, x: np.ndarray, y: np.ndarray) -> dict[str, Path]:
    np.savez_compressed(path.with_suffix(".npz"), x=x, y=y)
    return {"train": path.with_suffix(".npz")}


def write_safetensors(path: Path, x: np.ndarray, y: np.ndarray) -> dict[str, Path]:
    save_file({"x": torch.tensor(x), "y": torch.tensor(y)}, path.with_suffix(".safetensors"))
    return {"train": path.with_suffix(".safetensors")}


def write_pt(path: Path, x: np.ndarray, y: np.ndarray) -> dict[str, Path]:
    torch.save({"x": torch.tensor(x), "y": torch.tensor(y)}, path.with_suffix(".pt"))
    return {"train": path.with_suffix(".pt")}


def write_parquet(path: Path, x: np.ndarray, y: np.ndarray) -> dict[str, Path]:
    pyarrow.parquet.write_table(columns(x, y), path.with_suffix(".parquet"))
    return {"train": path.with_suffix(".parquet")}


def write_csv(path: Path, x: np.ndarray, y: np.ndarray) -> dict[str, Path]:
    pyarrow.csv.write_csv(columns(x, y), path.with_suffix(".csv"))
    return {"train": path.with_suffix(".csv")}


WRITERS: dict[str, Callable[[Path, np.ndarray, np.ndarray], dict[str, Path]]] = {
    ".npy": write_npy,
    ".npz": write_npz,
    ".safetensors": write_safetensors,
    ".pt": write_pt,
    ".parquet": write_parquet,
    ".csv": write_csv,
}
