"""Finished runs for tests, without a training: the folder that `fit` would leave."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from handgrad.classifier import Classifier
from handgrad.files import replace_file
from handgrad.runs.checkpoint_file import sealed
from handgrad.runs.folder import BEST, RESULTS
from handgrad.runs.results import as_csv

L2 = [1.0, 0.01, 0.1]  # of a path; the last one is selected


def classifier_of(classes: list, features: int = 5, task: str = "softmax", **more: Any) -> Classifier:
    """Returns a classifier with random weights."""
    outputs = 1 if task == "logistic" else len(classes)
    generator = torch.Generator().manual_seed(0)
    weight, bias = (torch.randn(shape, generator=generator).double() for shape in ((outputs, features), (outputs,)))
    return Classifier(weight, bias, task, classes, **{"l2": L2[-1], "C": 0.5, "gap": 1e-7} | more)


def finished_run(folder: Path, chosen: Classifier) -> Path:
    """Writes a run with the path ``L2``, whose other entries have the chosen one's weights times their l2."""
    rows = [
        {"task": chosen.task, "l2": l2, "C": 1 / l2, "gap": l2 / 1e6, "val_accuracy": 0.5, "selected": "false"}
        for l2 in L2
    ]
    rows[-1] |= {"selected": "true"}
    scale = torch.tensor([*L2[:-1], 1.0], dtype=torch.float64)
    state = {"weight": scale[:, None, None] * chosen.weight, "bias": scale[:, None] * chosen.bias}
    replace_file(folder / BEST, sealed({"state_dict": state, "hyper_parameters": {"l2": L2}}))
    replace(chosen, l2=L2[-1]).save(folder)
    replace_file(folder / RESULTS, as_csv(rows))
    return folder
