"""The finished runs of one split, by what the report uses them for."""

from dataclasses import dataclass
from pathlib import Path

from report.events import Run
from report.runs import COMMANDS, SEEDS, finished_jobs


@dataclass(frozen=True)
class Split:
    """The runs of a split: ``report``, which the seed's own figures were drawn on, or ``course``."""

    name: str
    logistic: Run
    stopped: Run  # early stopping, no shuffling
    shuffled: dict[int, Run]  # early stopping, by seed
    path: Run  # softmax regression, one classifier per l2


def load_split(root: Path, name: str) -> Split:
    """Returns the finished runs in ``root`` of the split ``name``."""
    runs = {}
    for command in COMMANDS:
        for job, folder in zip(command.jobs(), finished_jobs(command, root / command.name), strict=True):
            runs[job["experiment"], job.get("seed"), job.get("data.train_size")] = Run(folder)
    stopped = f"{name}_logistic_early_stopping"
    return Split(
        name=name,
        logistic=runs[f"{name}_logistic", None, None],
        stopped=runs[stopped, None, None],
        shuffled={int(seed): runs[stopped, int(seed), None] for seed in SEEDS},
        path=runs[f"{name}_l2", None, None],
    )


def load_small(root: Path) -> Run:
    """Returns the finished runs on few training images."""
    return Run(root / "small_data")
