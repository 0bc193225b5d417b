"""Looks at a run's final weights beside its data: ``python -m report.weights outputs/report/runs/course_l2``.

Writes ``weights.npz`` into the run's folder. A program of its own, for what it imports takes seconds to load and
the report only needs what it finds.
"""

import io
import sys
from pathlib import Path

import numpy as np

from handgrad.files import replace_file
from handgrad.runs.folder import LAST, RunFolder


def class_means(input: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns each class's mean sample minus the mean of all samples, (K, D)."""
    means = np.stack([input[target == k].mean(0) for k in range(target.max() + 1)])
    return means - input.mean(0)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the probabilities of ``logits`` over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def rounded_share(probability: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the share of one-hot entries that equal the rounded output, for ``probability (..., N, K)``.

    This is what the seed's figure 7 draws in place of the accuracy: an output that is nowhere above one half scores
    ``1 - 1/K``.
    """
    onehot = np.eye(probability.shape[-1])[target]
    return (np.round(probability) == onehot).mean((-2, -1))


def accuracy(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the share of samples whose largest logit is that of their class, for ``logits (..., N, K)``."""
    return (logits.argmax(-1) == target).mean(-1)


def correlation(weight: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Returns the mean over the classes of the correlation of ``weight (..., K, D)`` with ``means (K, D)``.

    That of a constant image is 0.
    """
    a = weight - weight.mean(-1, keepdims=True)
    b = means - means.mean(-1, keepdims=True)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return ((a * b).sum(-1) / np.maximum(norms, np.finfo(float).tiny)).mean(-1)


def examine(folder: Path) -> dict[str, np.ndarray]:
    """Returns what the report says of the final weights of the softmax run in ``folder``."""
    from hydra.utils import instantiate

    from handgrad.cli.configuration import composed
    from handgrad.runs.checkpoint import WholeCheckpointIO

    state = WholeCheckpointIO().load_checkpoint(folder / LAST, "cpu")["state_dict"]
    data = instantiate(composed(RunFolder(folder).words(), folder).data)
    data.setup()
    (input, target), (train, train_target) = ((x.numpy(), y.numpy()) for x, y in (data.val, data.train))
    weight, bias = state["weight"].double().numpy(), state["bias"].double().numpy()
    logits = np.einsum("nd,lkd->lnk", input, weight, optimize=True) + bias[:, None]
    means = class_means(train, train_target)
    return {
        "l2": state["l2"].numpy(),
        "weight": weight.astype(np.float32),
        "class_means": means,
        "correlation": correlation(weight, means),
        "rounded_share": rounded_share(softmax(logits), target),
        "largest_output": softmax(logits).max((1, 2)),
        "accuracy": accuracy(logits, target),
        "train_count": np.bincount(train_target),
        "val_count": np.bincount(target),
    }


def main(folder: Path) -> None:
    content = io.BytesIO()
    np.savez(content, **examine(folder))
    replace_file(folder / "weights.npz", content.getvalue())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
