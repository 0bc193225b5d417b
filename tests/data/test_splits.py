"""Folds and draws hold what they promise."""

import numpy as np
import pytest
import torch

from handgrad.data.splits import few_shots, fold_index
from handgrad.errors import InputError
from tests.test_cross_validation import NAMES, samples


def test_folds_hold_each_sample_out_once_and_spread_classes():
    _, y = samples(rows=101)
    fold = fold_index(y, NAMES, 5, 0)
    assert fold.bincount().tolist() == [21, 20, 20, 20, 20]
    for number in range(3):
        counts = fold[y == number].bincount(minlength=5)
        assert counts.max() - counts.min() <= 1
    assert torch.equal(fold, fold_index(y, NAMES, 5, 0))
    assert not torch.equal(fold, fold_index(y, NAMES, 5, 1))


def test_groups_stay_together():
    _, y = samples(rows=120)
    groups = np.array([f"g{i // 4}" for i in range(120)])
    fold = fold_index(y, NAMES, 5, 0, groups).numpy()
    assert set(fold.tolist()) == set(range(5))
    for group in np.unique(groups):
        assert len(set(fold[groups == group].tolist())) == 1


@pytest.mark.parametrize(
    ("target", "folds", "groups", "message"),
    [
        ([0, 0, 1, 1], 5, None, "folds=5: accepted are 2 to 4, the number of samples"),
        ([0, 0, 1, 1], 3, ["x", "x", "y", "y"], "folds=3: accepted are 2 to 2, the number of groups"),
        ([0, 0, 0, 1], 2, None, "folds=2: all samples of class 'b' are in one fold"),
        ([0, 0, 0, 1, 1, 0], 2, ["x", "z", "z", "y", "y", "x"], "class 'b' are in one fold; accepted are two groups"),
    ],
)
def test_folds_that_can_not_be_made_are_refused(target, folds, groups, message):
    groups = None if groups is None else np.array(groups)
    with pytest.raises(InputError, match=message):
        fold_index(torch.tensor(target), ["a", "b"], folds, 0, groups)


def test_few_shots_are_so_many_of_each_class():
    _, y = samples()
    drawn = few_shots(y, 4, 0, 1)
    assert y[drawn].bincount().tolist() == [4, 4, 4]
    assert torch.equal(drawn, drawn.sort().values)
    assert not torch.equal(drawn, few_shots(y, 4, 0, 2))
