"""Multi-label regression: K sigmoids, one for each label, which a sample has or lacks whatever its other labels are."""

from torch import Tensor

from handgrad.functions.objective import MULTILABEL
from handgrad.models.linear_classifier import LinearClassifier


class MultilabelRegression(LinearClassifier):
    """L multi-label regressions; see ``LinearClassifier``. The loss is the sum over the labels.

    A sample counts as right where all its labels are: the accuracy is scikit-learn's subset accuracy.
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
