import numpy as np
import pytest
import torch

from handgrad.runs.checkpoint import WholeCheckpointIO
from handgrad.runs.folder import RunFolder
from report.weights import accuracy, class_means, correlation, main, rounded_share, softmax


def test_an_all_zero_output_scores_ninety_percent_by_the_wrong_metric():
    target = np.arange(50) % 10
    assert rounded_share(np.zeros((50, 10)), target) == pytest.approx(0.90, abs=1e-15)
    assert rounded_share(softmax(np.zeros((2, 50, 10))), target) == pytest.approx([0.90, 0.90], abs=1e-15)
    assert rounded_share(np.eye(10)[target], target) == 1.0


def test_accuracy_takes_the_largest_logit():
    logits = np.array([[[0.1, 0.2], [3.0, 1.0]], [[0.2, 0.1], [3.0, 1.0]]])
    assert accuracy(logits, np.array([1, 0])).tolist() == [1.0, 0.5]


def test_class_means_are_centred_on_the_mean_of_all():
    input, target = np.array([[0.0, 0], [2, 4], [4, 2]]), np.array([0, 1, 1])
    assert class_means(input, target).tolist() == [[-2, -2], [1, 1]]


def test_correlation_ignores_scale_and_offset():
    means = np.random.default_rng(0).normal(size=(3, 20))
    weight = np.stack([2 * means + 1, -means])
    assert correlation(weight, means) == pytest.approx([1, -1])


def test_zero_weights_of_a_real_checkpoint(tmp_path):
    state = {"weight": torch.zeros(1, 10, 784), "bias": torch.zeros(1, 10), "l2": torch.zeros(1)}
    WholeCheckpointIO().save_checkpoint({"state_dict": state}, tmp_path / "checkpoints" / "last.ckpt")
    RunFolder(tmp_path).begin({}, ["experiment=report_softmax"], None)
    state["weight"][0, 0, 0] = 1.0  # saved before: the file holds zeros
    main(tmp_path)
    with np.load(tmp_path / "weights.npz") as file:
        found = dict(file)
    assert found["train_count"].sum() == 18_000
    assert found["val_count"].sum() == 2_000
    assert found["rounded_share"].tolist() == pytest.approx([0.90], abs=1e-15)
    assert found["accuracy"].tolist() == [found["val_count"][0] / 2000]
    assert found["class_means"].shape == (10, 784)
