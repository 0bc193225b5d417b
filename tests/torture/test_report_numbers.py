"""What the report's page says a plain NumPy loop gives."""

import pytest

from handgrad.data.mnist import MNISTDataModule
from report.numbers import NUMPY_ACCURACY, NUMPY_SMALL
from tests.conftest import DATA
from tests.test_train import numpy_run

pytestmark = pytest.mark.torture


def load(**settings) -> MNISTDataModule:
    data = MNISTDataModule(root=DATA, digits=range(10), shuffle=False, seed=0, **settings)
    data.setup()
    return data


def test_few_images():
    data = load(split="course", batch_size=100, epochs=1900, train_size=100)
    assert [f"{numpy_run(data, l2, lr=0.1)[0]:.4f}" for l2 in (0, 0.02)] == list(NUMPY_SMALL)


def test_accuracies():
    data = load(split="report", batch_size=128, epochs=50, train_size=None)
    assert {l2: f"{numpy_run(data, l2, lr=0.01)[1]:.4f}" for l2 in NUMPY_ACCURACY} == NUMPY_ACCURACY
