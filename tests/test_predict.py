"""The program predict.py after real trainings: it says of files what the run measured on them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import predict as program
from handgrad.classifier import classifier_of_run
from handgrad.cli.configuration import CONF
from handgrad.cli.words import PREDICT, read_words
from handgrad.data.mnist import MNISTDataModule
from handgrad.runs.results import read_results
from tests.conftest import DATA

X, Y = load_digits(return_X_y=True)
X = X + 100.0  # far from zero, where a normalization that is folded into the weights has to be exact


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """The current folder has digits: features with labels beside them."""
    monkeypatch.chdir(tmp_path)
    np.savez("train.npz", x=X[:900], y=Y[:900])
    np.savez("val.npz", x=X[900:], y=Y[900:])
    return tmp_path


def measured(*words: str) -> dict:
    """Runs the program; returns what it measured."""
    program.main(read_words([*words, "out=p.csv", "overwrite=true"], PREDICT))
    return json.loads(Path("p.csv.metrics.json").read_text())


@pytest.mark.parametrize("normalize", ["none", "standardize", "l2"])
def test_each_l2_gives_on_a_file_what_the_run_measured_there(normalize, run, capsys):
    words = ["data=features", "data.train=train.npz", "data.val=val.npz", f"data.normalize={normalize}", "logger=none"]
    folder = run(*words, "optimizer=exact", "l2=[1,0.03]")
    for row in read_results(folder / "results.csv"):
        found = measured(
            f"run={folder}", "features=val.npz", *([] if row["selected"] == "true" else [f"l2={row['l2']}"])
        )
        assert found["loss"] == pytest.approx(row["val_loss"], rel=1e-6)
        assert found["accuracy"] == row["val_accuracy"]
        assert f"897 rows, l2={row['l2']:g}. Files: p.csv, p.csv.metrics.json" in capsys.readouterr().out
    files = {name: classifier_of_run(folder).files[name] for name in ("train.npz",)}
    assert files == classifier_of_run(folder).files
    assert len(files["train.npz"]) == 64


def test_mnists_pixels_are_scaled_by_who_predicts(run, capsys):
    folder = run("task=logistic", "data.train_size=300", "data.split=course", "epochs=2", "logger=none")
    shared = dict(shuffle=False, batch_size=8, seed=0, epochs=1)
    data = MNISTDataModule(root=DATA, split="course", digits=[3, 2], **shared)
    data.setup()
    np.savez("mnist.npz", x=data.val[0], y=np.array([3, 2])[data.val[1]])
    found, (row,) = measured(f"run={folder}", "features=mnist.npz"), read_results(folder / "results.csv")
    assert found["accuracy"] == row["val_accuracy"]
    assert found["loss"] == pytest.approx(row["val_loss"], rel=1e-5)  # the run's is a mean in float32
    assert [entry["class"] for entry in found["classes"]] == [3, 2]
    assert "Features are taken to be pixel / 127.5 - 1, as in training." in capsys.readouterr().out
    classifier = classifier_of_run(folder)
    assert classifier.weight.shape == (1, 784)
    assert set(classifier.files) == {path.name for path in (DATA / "MNIST" / "raw").glob("*ubyte")}


def test_the_program_as_it_is_typed_loads_neither_lightning_nor_hydra(run, here):
    words = ["data=features", "data.train=train.npz", "optimizer=exact", "l2=0.1", "logger=none"]
    folder = run(*words)
    command = [sys.executable, "-X", "importtime", CONF.parent / "predict.py", f"run={folder}", "features=val.npz"]
    done = subprocess.run([*command, "out=p.npy"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert np.load("p.npy").shape == (897, 10)
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "torch" in modules
    assert not {"pytorch_lightning", "lightning_fabric", "hydra", "omegaconf", "torchvision", "sklearn"} & modules


def test_half_precision_is_saved_as_what_all_readers_know(run):
    words = ["data=features", "data.train=train.npz", "epochs=1", "logger=none", "callbacks.gradient_check=null"]
    folder = run(*words, "trainer.precision=bf16-true", "lr=1e-5")
    classifier = classifier_of_run(folder)
    assert classifier.weight.dtype == torch.float32
    assert torch.equal(classifier.weight, classifier.weight.bfloat16().float())
