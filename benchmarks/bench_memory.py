"""Peak memory of a whole run of split ``full``, and how much of it is the libraries'."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import ROOT, Options, Table, scratch

MIB = 2**20
IMPORTS = "import torch, pytorch_lightning"


def run(options: Options) -> list[Table]:
    if "torch" in sys.modules:
        raise RuntimeError("this process has imported torch; its size would count as its children's")
    repeats = 1 if options.quick else 3
    imports = min(peak("-c", IMPORTS) for _ in range(repeats))
    with scratch() as folder:
        whole = max(peak("train.py", *overrides(folder / str(i), options)) for i in range(repeats))
    images = 70_000 * 784 * 4
    rows = [
        ["importing torch and Lightning", imports / MIB],
        ["a run of split `full`", whole / MIB],
        ["above the imports", (whole - imports) / MIB],
        ["70,000 images as float32, to compare", images / MIB],
    ]
    note = f"Largest resident size of a process of its own; of {repeats} the largest run and the smallest import."
    return [Table("peak", "Peak memory", ["", "MiB"], rows, [note])]


def overrides(folder: Path, options: Options) -> list[str]:
    """A run with everything on; two epochs reach its peak."""
    small = ["data.train_size=2560"] if options.quick else []
    return [
        "data.split=full",
        f"epochs={1 if options.quick else 2}",
        f"hydra.run.dir={folder.relative_to(ROOT)}",
        *small,
    ]


def peak(*arguments: str) -> int:
    """Returns the largest resident size, in bytes, of ``python *arguments``."""
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} failed:\n{errors}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
