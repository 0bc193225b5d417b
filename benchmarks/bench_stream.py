"""A pass over features on disk, by chunks of mapped files, over the same pass where they lie in memory.

The page cache is warm, so that what is left is the way of a chunk from the cache to the products. One thread.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import ONE, Options, Sample, Table, alternate, scratch, target_row, threads
from benchmarks.probe_ours import timed
from handgrad.data.rows import Rows
from handgrad.functions.objective import SOFTMAX, Objective

TARGET = 1.2
CLASSES, SHARDS, LEFT_OUT = 10, 2, 0.1
COLUMNS = ["streamed over resident", "target", "processor", "min", "max", ""]


def run(options: Options) -> list[Table]:
    samples, features = (200, 8) if options.quick else (60_000, 1024)
    with scratch() as folder, threads(ONE):
        shards = [mapped(folder / f"{number}.npy", number, samples, features) for number in range(SHARDS)]
        kept = (torch.rand(SHARDS * samples, generator=torch.Generator().manual_seed(0)) > LEFT_OUT).nonzero().flatten()
        rows = [
            target_row(
                f"{told}, {str(dtype).removeprefix('torch.')}", TARGET, ratio(Rows(shards, index), dtype, options)
            )
            for told, index in (("all rows", None), ("a tenth of the rows held out", kept))
            for dtype in (torch.float32, torch.float64)
        ]
    notes = [
        f"Processor seconds of a pass over {SHARDS} x {samples:,} x {features} float32 features, K = {CLASSES}, by the "
        "dtype of its products.",
        "Where rows are held out each chunk is gathered; in memory they lie one beside the other.",
    ]
    return [Table("passes", "Features on disk", COLUMNS, rows, notes)]


def mapped(file: Path, seed: int, samples: int, features: int) -> Tensor:
    """Returns random features (N, D) of a file that is written for this."""
    np.save(file, np.random.default_rng(seed).random((samples, features), dtype=np.float32))
    return torch.from_numpy(np.load(file, mmap_mode="c"))


def ratio(rows: Rows, dtype: torch.dtype, options: Options) -> Sample:
    """Returns what a pass over rows on disk takes over one on the same in memory."""
    taken = alternate(
        {"in memory": one_pass(rows.in_memory(), dtype), "on disk": one_pass(rows.fleeting(), dtype)}, options
    )
    return taken["on disk"].over(taken["in memory"])


def one_pass(input: Rows | Tensor, dtype: torch.dtype) -> Callable[[], float]:
    """Returns what makes a pass, and returns its processor seconds."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(CLASSES, (len(input),), generator=generator)
    weight = torch.randn(1, CLASSES, input.shape[1], generator=generator, dtype=torch.float64)
    objective = Objective(SOFTMAX, torch.ones(1, dtype=torch.float64))
    evaluate = partial(objective.data_term, weight, weight[:, :, 0], input, target, dtype=dtype)
    return lambda: timed(evaluate)["cpu"]
