"""Logistic regression (seed eq. 1-13): K = 1 output, the logit of class 1."""

from torch import Tensor

from handgrad.errors import InputError
from handgrad.functions.objective import LOGISTIC
from handgrad.models.linear_classifier import LinearClassifier


class LogisticRegression(LinearClassifier):
    """L logistic regressions; see ``LinearClassifier``.

    Raises:
        InputError: unless there are two classes.
    """

    task = "logistic"
    criterion = LOGISTIC

    @staticmethod
    def num_outputs(num_classes: int) -> int:
        if num_classes != 2:
            raise InputError(f"task=logistic: {num_classes} classes; accepted are exactly 2, or task=softmax")
        return 1

    @staticmethod
    def decide(logits: Tensor) -> Tensor:
        return (logits[..., 0] > 0).long()
