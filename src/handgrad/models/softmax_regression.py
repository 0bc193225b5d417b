"""Softmax regression (seed eq. 14-37): K = C outputs, the class with the largest logit wins."""

from torch import Tensor

from handgrad.functions.objective import SOFTMAX
from handgrad.models.linear_classifier import LinearClassifier


class SoftmaxRegression(LinearClassifier):
    """L softmax regressions; see ``LinearClassifier``."""

    task = "softmax"
    criterion = SOFTMAX

    @staticmethod
    def num_outputs(num_classes: int) -> int:
        return num_classes

    @staticmethod
    def decide(logits: Tensor) -> Tensor:
        return logits.max(2).indices  # argmax is several times slower along an axis that is not the last in memory
