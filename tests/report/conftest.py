"""Small made-up runs, written with the project's own logger, on which the report is tested without training."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from handgrad.loggers.tensorboard import TensorBoardPathLogger
from report.runs import COMMANDS, Command, Overrides
from report.splits import Split, load_small, load_split

BATCHES, INTERVAL = 8, 3  # updates per epoch, and between two checks: lcm 24
SIDE = 28


def write_run(folder: Path, job: Overrides, updates: int = 240) -> None:
    """Writes what a finished run leaves: overrides, configuration, curves and results."""
    l2 = job.get("l2") or ([0, 0.002, 0.02, 0.2, 2] if "l2" in job["experiment"] else [0])
    hydra = folder / ".hydra"
    hydra.mkdir(parents=True)
    (hydra / "overrides.yaml").write_text(yaml.safe_dump([f"{k}={yaml_value(v)}" for k, v in job.items()]))
    config = {"lr": 0.05, "batch_size": 128, "epochs": updates // BATCHES, "data": {"train_size": 100}}
    config |= {"optimizer": {"tolerance": 1e-6}}
    (hydra / "config.yaml").write_text(yaml.safe_dump(config))
    write_curves(folder, [float(x) for x in l2], updates, spiky="course" in job["experiment"] and "seed" not in job)
    write_results(folder, [float(x) for x in l2], updates, exact=job.get("optimizer") == "exact")


def yaml_value(value) -> str:
    return yaml.safe_dump(value, default_flow_style=True).split("\n")[0]


def write_curves(folder: Path, l2: list[float], updates: int, spiky: bool) -> None:
    logger = TensorBoardPathLogger(folder, l2)
    running = torch.ones(len(l2), dtype=torch.bool)
    step = torch.arange(updates, dtype=torch.float64)[:, None]
    logger.log_path(0, {"loss/train": 0.1 + 0.01 * torch.cos(step) + torch.zeros(len(l2))}, running)
    for check in range(INTERVAL, updates + 1, INTERVAL):
        accuracy = 0.97 - 0.2 / check - (0.03 if spiky and check % BATCHES == 4 else 0)
        names = {"loss/val": 0.1 + 1 / check, "accuracy/val": accuracy, "accuracy/train": accuracy + 0.001}
        logger.log_path(check, {k: torch.full((1, len(l2)), v) for k, v in names.items()}, running)
    logger.save()


def write_results(folder: Path, l2: list[float], updates: int, exact: bool = False) -> None:
    """Writes losses of 0.3 + l2 and 0.31 + l2; an exact run's are smaller by 0.05, and proven but for l2 = 2."""
    names = ("train_loss", "val_loss", "train_accuracy", "val_accuracy", "weight_norm_squared")
    with open(folder / "results.csv", "w", newline="") as file:
        writer = csv.writer(file)
        columns = ["task", "l2", "epoch", "steps", "best_step", *names, "objective", "gap", "converged", "test_loss"]
        writer.writerow([*columns, *(f"last_{name}" for name in names), "last_gap"])
        better = 0.05 if exact else 0.0
        for value in l2:
            squared = 4 / (1 + value) ** 2
            measured = (0.3 + value - better, 0.31 + value - better, 0.93, 0.92 - better, squared)
            numbers = [value, updates // BATCHES, updates, updates - 30, *measured]
            proof = [measured[0] + value / 2 * squared, 1e-7, str(exact and value < 2).lower(), ""]
            writer.writerow(["softmax", *numbers, *proof, *measured, 0.25])


def write_weights(folder: Path) -> None:
    rng = np.random.default_rng(0)
    l2 = np.array([0, 0.002, 0.02, 0.2, 2], dtype=np.float32)
    np.savez(
        folder / "weights.npz",
        l2=l2,
        weight=rng.normal(size=(5, 10, SIDE**2)),
        class_means=rng.normal(size=(10, SIDE**2)),
        correlation=np.linspace(0.7, 0.99, 5),
        rounded_share=np.linspace(0.98, 0.9, 5),
        train_count=np.full(10, 1800),
        val_count=np.full(10, 200),
    )


def write_command(command: Command, root: Path) -> None:
    for number, job in enumerate(command.jobs()):
        folder = root / command.name / str(number) if command.swept else root / command.name
        write_run(folder, job)
        if command.weights:
            write_weights(folder)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose ``runs`` hold every run of the report, made up."""
    folder = tmp_path_factory.mktemp("report")
    for command in COMMANDS:
        write_command(command, folder / "runs")
    return folder


@pytest.fixture(scope="session")
def splits(finished: Path) -> dict[str, Split]:
    return {name: load_split(finished / "runs", name) for name in ("report", "course")}


@pytest.fixture(scope="session")
def small(finished: Path):
    return load_small(finished / "runs")
