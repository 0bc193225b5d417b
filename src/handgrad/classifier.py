"""One fitted classifier apart from its training: what it says of features as they are, and its file.

``model.safetensors`` holds ``weight (K, D)`` and ``bias (K,)``, and in its metadata, under ``handgrad``, all else as
JSON (one key: safetensors writes several in any order). ``model.json`` is the same without the numbers of the weights,
for people. Both follow from the classifier alone, byte for byte.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from handgrad.data.normalization import to_length_one
from handgrad.errors import InputError, nearest
from handgrad.files import replace_file
from handgrad.metrics import decide, log_probabilities
from handgrad.runs.checkpoint_file import read_checkpoint
from handgrad.runs.folder import BEST, MODEL, MODEL_FOR_PEOPLE, RESULTS, RunFolder
from handgrad.runs.results import MEASURES, Row
from handgrad.runs.sweep import SWEEP

KEY = "handgrad"
NEAREST = 4  # l2 values that are named


@dataclass(frozen=True, eq=False)
class Classifier:
    """A linear classifier of C classes by D features as they are: a normalization by columns is folded into it.

    Attributes:
        weight, bias: (K, D) and (K,). K = 1 is a sigmoid: the logit of the second class. Else K = C, a softmax; of
            ``task="multilabel"`` a sigmoid for each of C labels.
        task: the model's name on the command line.
        classes: their names, by index.
        feature_names: None: they have none.
        scaling: how features come from what is stored, in words, where who predicts has to do it; None: not at all.
        unit_rows: each row is divided by its length first, which the classifier does itself.
        l2, C, gap: as in ``results.csv``; None: not measured, or infinite.
        measures: losses and accuracies, and the squared norm of the weights that were trained, as in ``results.csv``.
        files: the SHA-256 of each file that it was trained on, by name.
        versions: of the packages that trained it.
    """

    weight: Tensor
    bias: Tensor
    task: str
    classes: Sequence[int | str]
    l2: float
    C: float | None = None
    gap: float | None = None
    feature_names: Sequence[str] | None = None
    scaling: str | None = None
    unit_rows: bool = False
    measures: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_features(self) -> int:
        return self.weight.shape[1]

    @property
    def multilabel(self) -> bool:
        return self.task == "multilabel"

    def check_one_label(self, what: str) -> None:
        """Raises an InputError that begins with ``what`` where samples have several labels."""
        if self.multilabel:
            raise InputError(
                f"{what}: the run is of task=multilabel, several labels a sample; accepted of it are "
                "format=onnx, npz and torch"
            )

    def logits(self, input: Tensor) -> Tensor:
        """Returns the logits (N, K) float64 of ``input (N, D)``."""
        input = input.double()
        if self.unit_rows:
            input = to_length_one(input)
        return input @ self.weight.double().t() + self.bias.double()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Returns the probabilities (N, C) of the classes, or of the labels, for ``logits (N, K)``."""
        if self.multilabel:
            return torch.sigmoid(logits)
        return log_probabilities(logits).exp()

    def decide(self, logits: Tensor) -> Tensor:
        """Returns the most probable class (N,) for ``logits (N, K)``; of equal ones the first; of labels all (N, K)."""
        if self.multilabel:
            return (logits > 0).long()
        return decide(logits)

    def as_softmax(self) -> tuple[Tensor, Tensor]:
        """Returns weight (C, D) and bias (C,) of the softmax that gives the same probabilities.

        A sigmoid is the softmax of 0 and its logit.

        Raises:
            InputError: samples have several labels.
        """
        self.check_one_label("format=sklearn")
        if len(self.weight) > 1:
            return self.weight, self.bias
        return torch.cat((torch.zeros_like(self.weight), self.weight)), torch.cat(
            (torch.zeros_like(self.bias), self.bias)
        )

    # --- Files --------------------------------------------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """Returns all but weight and bias, in types that JSON knows."""
        found = {entry.name: getattr(self, entry.name) for entry in fields(self)[2:]}
        return json.loads(json.dumps(found, allow_nan=False))

    def save(self, folder: Path) -> None:
        """Writes ``model.json`` and ``model.safetensors`` into a folder.

        Raises:
            OSError: one could not be written.
        """
        shapes = {"weight": list(self.weight.shape), "bias": list(self.bias.shape)}
        shown = self.about() | {"shapes": shapes, "dtype": str(self.weight.dtype).removeprefix("torch.")}
        lines = [f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in shown.items()]
        replace_file(folder / MODEL_FOR_PEOPLE, ("{\n" + ",\n".join(lines) + "\n}\n").encode())
        replace_file(folder / MODEL, self.as_safetensors())

    def as_safetensors(self) -> bytes:
        """Returns the content of ``model.safetensors``."""
        about = self.about()
        told = json.dumps(about | {"sha256": digest(about, self.weight, self.bias)}, ensure_ascii=False)
        return save({"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}, {KEY: told})

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        """Returns the classifier in a ``model.safetensors``.

        Raises:
            InputError: it is missing, damaged, or none of this project.
        """
        if not path.is_file():
            raise InputError(f"{RunFolder(path)}: missing; accepted is a run of this version that has finished")
        try:
            with safe_open(path, "pt") as opened:
                about = json.loads((opened.metadata() or {})[KEY])
                weight, bias = opened.get_tensor("weight").clone(), opened.get_tensor("bias").clone()
            told = about.pop("sha256")
        except Exception as error:
            raise InputError(
                f"{RunFolder(path)}: damaged, or no model of this project ({first_line(error)})"
            ) from error
        if told != digest(about, weight, bias):
            raise InputError(f"{RunFolder(path)}: damaged (its SHA-256 does not match)")
        try:
            found = cls(weight, bias, **about)
        except TypeError as error:
            version = about.get("versions", {}).get("handgrad")
            raise InputError(
                f"{RunFolder(path)}: written by handgrad {version}, which this one does not read"
            ) from error
        found.check(RunFolder(path))
        return found

    def check(self, path: RunFolder) -> None:
        """Raises an InputError if weights and classes, as a file has them, are none of a classifier."""
        weight, bias, count = self.weight, self.bias, len(self.classes) if isinstance(self.classes, list) else 0
        outputs = (1, 2) if count == 2 else (count,)
        if not count or weight.dim() != 2 or len(weight) not in outputs or bias.shape != weight.shape[:1]:
            raise InputError(f"{path}: weights of shape {tuple(weight.shape)} and {count} classes are no classifier")
        if not (weight.isfinite().all() and bias.isfinite().all()):
            raise InputError(f"{path}: the weights have numbers that are not finite; accepted are finite ones")


def digest(about: Mapping[str, Any], weight: Tensor, bias: Tensor) -> str:
    """Returns the SHA-256 of all that a file of a classifier holds."""
    found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for tensor in (weight, bias):
        found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


# --- Runs -------------------------------------------------------------------------------------------------------------


def classifier_of_run(folder: str | Path, l2: float | None = None) -> Classifier:
    """Returns the selected classifier of a finished run, or that of another of its l2 values.

    Args:
        folder: of a run, or of a job of a sweep.

    Raises:
        InputError: ``folder`` is not that of a finished run, something in it is damaged, or it has no such ``l2``.
    """
    run = RunFolder(folder)
    rows = rows_of(run)
    chosen = Classifier.load(run.path / MODEL)
    if l2 is None or l2 == chosen.l2:
        return chosen
    values = [row["l2"] for row in rows]
    if l2 not in values:
        told = ", ".join(f"{value:g}" for value in sorted(values, key=lambda value: abs(value - l2))[:NEAREST])
        more = f" and {len(values) - NEAREST} more" if len(values) > NEAREST else ""
        raise InputError(f"l2={l2:g}: none of this run; accepted are {told}{more}")
    return entry_of(run, chosen, rows[values.index(l2)])


def entry_of(run: RunFolder, chosen: Classifier, row: Row) -> Classifier:
    """Returns the classifier of a row of results, by the weights in ``best.ckpt``; they too are for raw features."""
    path = run.path / BEST
    if not path.is_file():
        raise InputError(f"{RunFolder(path)}: missing; it holds all l2 values; accepted without it is l2={chosen.l2:g}")
    checkpoint = read_checkpoint(path, "cpu")
    try:
        state, entry = checkpoint["state_dict"], checkpoint["hyper_parameters"]["l2"].index(row["l2"])
        weight, bias = state["weight"][entry], state["bias"][entry]
        is_same = weight.shape == chosen.weight.shape
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        is_same = False
    if not is_same:
        raise InputError(f"{RunFolder(path)}: it is not of the run that {RESULTS} and {MODEL} are of")
    measures = {name: row[name] for name in MEASURES if row.get(name) is not None}
    dtype = chosen.weight.dtype
    found = replace(
        chosen,
        weight=weight.to(dtype),
        bias=bias.to(dtype),
        measures=measures,
        **{name: row[name] for name in ("l2", "C", "gap")},
    )
    found.check(RunFolder(path))
    return found


def rows_of(run: RunFolder) -> list[Row]:
    """Returns the results of a run; an InputError tells if it is none, or has not finished."""
    path, accepted = run.path, "accepted is the folder of a finished run, like outputs/<run>"
    if path.is_file():
        raise InputError(f"run={run}: a file; {accepted}")
    if not path.is_dir():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"run={run}: no such folder; {accepted}{nearest(path.name, beside)}")
    if (path / SWEEP).exists():
        jobs = sorted(other.name for other in path.iterdir() if (other / RESULTS).is_file())
        raise InputError(f"run={run}: a sweep; accepted is one of its jobs, like {run}/{jobs[0] if jobs else '<job>'}")
    if run.has_damaged_results:
        raise InputError(f"{RunFolder(path / RESULTS)}: damaged, or no results of a run")
    if not run.has_results:
        if told := run.failure():
            raise InputError(f"run={run}: the run failed ({told}); {accepted}")
        if run.has_checkpoint:
            raise InputError(f"run={run}: the run has not finished; python train.py resume={run} goes on with it")
        raise InputError(f"run={run}: no {RESULTS} there; {accepted}")
    return run.results_or_none()
