"""How long it takes until something happens: the imports, ``--help``, and a whole short run."""

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from benchmarks.harness import ROOT, Options, Table, alternate, scratch, spread, timed

COMMANDS = {
    "python itself": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import pytorch_lightning": ["-c", "import pytorch_lightning"],
    "train.py --help": ["train.py", "--help"],
    "train.py epochs=1, one mini-batch": ["train.py", "epochs=1", "data.split=course", "data.train_size=128"],
}
PARTS = ("fit", "data.mnist", "models.softmax_regression", "solvers.sgd", "callbacks.weight_images")
OURS = "import " + ", ".join(f"handgrad.{part}" for part in PARTS)
QUICK = ("python itself", "train.py --help")
SLOWEST = 12


def run(options: Options) -> list[Table]:
    with scratch() as folder:
        names = QUICK if options.quick else COMMANDS
        contestants = {name: partial(start, COMMANDS[name], folder) for name in names}
        samples = alternate(contestants, options)
    rows = [[name, *spread(sample)] for name, sample in samples.items()]
    columns = ["command", "median s", "min", "max"]
    tables = [Table("commands", "Start-up", columns, rows, ["A process each; files warm in the page cache."])]
    if not options.quick:
        note = "`python -X importtime`, one run of the imports of ours, which itself slows imports down."
        tables.append(Table("imports", "Slowest imports", ["package", "seconds in its own modules"], imports(), [note]))
    return tables


def start(arguments: list[str], folder: Path) -> float:
    if arguments[-1].startswith("data."):
        arguments = [*arguments, f"hydra.run.dir={folder.relative_to(ROOT)}/{time.time_ns()}"]
    return timed(lambda: python(*arguments))


def python(*arguments: str) -> str:
    """Runs ``python *arguments`` and returns what it wrote to stderr."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} failed:\n{done.stderr}")
    return done.stderr


def imports() -> list[tuple[str, float]]:
    """Returns the packages that cost the most when a run's modules are imported: seconds in their own modules."""
    lines = python("-X", "importtime", "-c", OURS).splitlines()
    packages: dict[str, float] = {}
    for line in lines:
        own, *_, module = line.removeprefix("import time:").split("|")
        if own.strip().isdigit():  # not the heading, not a warning
            package = module.strip().split(".")[0]
            packages[package] = packages.get(package, 0.0) + int(own) / 1e6
    return sorted(packages.items(), key=lambda item: -item[1])[:SLOWEST]
