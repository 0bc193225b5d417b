"""The losses and the penalty as functions on tensors, each with a gradient derived by hand."""

from handgrad.functions.l2_penalty import l2_penalty
from handgrad.functions.linear_binary_cross_entropy import linear_binary_cross_entropy
from handgrad.functions.linear_cross_entropy import linear_cross_entropy

__all__ = ["l2_penalty", "linear_binary_cross_entropy", "linear_cross_entropy"]
