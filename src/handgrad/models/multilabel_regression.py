"""Multi-label regression: K sigmoids, one for each label, which a sample has or lacks whatever its other labels are."""

from functools import partial

import torch
from torch import Tensor

from handgrad.data.blocks import Samples
from handgrad.functions.linear_map import linear_map
from handgrad.functions.objective import MULTILABEL
from handgrad.metrics import mean_average_precision
from handgrad.models.linear_classifier import NUMBERS_AT_ONCE, LinearClassifier


class MultilabelRegression(LinearClassifier):
    """L multi-label regressions; see ``LinearClassifier``. The loss is the sum over the labels.

    A sample counts as right where all its labels are: the accuracy is scikit-learn's subset accuracy. What is evaluated
    at the end also gets the mean average precision (mAP), of the best weights: the mean over the labels of how precise
    their rankings of the samples are, whatever the threshold.
    """

    task = "multilabel"
    criterion = MULTILABEL
    multilabel = True

    @staticmethod
    def num_outputs(num_classes: int) -> int:
        return num_classes

    @staticmethod
    def decide(logits: Tensor) -> Tensor:
        return (logits > 0).long()

    def test_step(self, batch: dict[str, Samples], batch_idx: int) -> None:
        """Evaluates the best and the last weights, and the best one's rankings but for the training set's."""
        super().test_step(batch, batch_idx)
        for split in batch.keys() - {"train"}:
            calls = [partial(self.ranked, entry, batch[split]) for entry in range(len(self.l2))]
            self.final[f"{split}_map"] = torch.tensor(self.pipeline.run(calls), dtype=torch.float64)

    @torch.inference_mode()
    def ranked(self, entry: int, samples: Samples) -> float:
        """Returns the mAP of an entry's best weights, over the labels that a sample of the set has."""
        input, target = samples
        dtype = torch.promote_types(self.best_weight.dtype, torch.float32)
        weight, bias = self.best_weight[entry : entry + 1].to(dtype), self.best_bias[entry].to(dtype)
        rows = max(1, NUMBERS_AT_ONCE // input.shape[1])
        parts = [slice(first, first + rows) for first in range(0, len(target), rows)]
        logits = torch.cat([linear_map(input[part].to(dtype), weight)[0].t() + bias for part in parts])
        return mean_average_precision(logits.cpu(), target.cpu())
