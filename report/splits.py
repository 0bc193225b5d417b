"""The finished runs of one split, by what the report uses them for."""

from dataclasses import dataclass
from pathlib import Path

from handgrad.runs.results import Row
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
    optimum: Run  # the same objectives by the exact solver, l2 > 0

    def certified(self) -> dict[float, Row]:
        """Returns the results of the exact solver by ascending l2, without any whose optimum is not proven."""
        rows = {row["l2"]: row for row in self.optimum.results if row["converged"] == "true"}
        return dict(sorted(rows.items()))


def load_split(root: Path, name: str) -> Split:
    """Returns the finished runs in ``root`` of the split ``name``."""
    runs = {}
    for command in COMMANDS:
        for job, folder in zip(command.jobs(), finished_jobs(command, root / command.name), strict=True):
            chosen = (job.get(key) for key in ("seed", "data.train_size", "optimizer"))
            runs[job["experiment"], *chosen] = Run(folder)
    stopped = f"{name}_logistic_early_stopping"
    return Split(
        name=name,
        logistic=runs[f"{name}_logistic", None, None, None],
        stopped=runs[stopped, None, None, None],
        shuffled={int(seed): runs[stopped, int(seed), None, None] for seed in SEEDS},
        path=runs[f"{name}_l2", None, None, None],
        optimum=runs[f"{name}_l2", None, None, "exact"],
    )


def load_small(root: Path) -> Run:
    """Returns the finished runs on few training images."""
    return Run(root / "small_data")
