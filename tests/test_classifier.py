"""A classifier by itself: what it says of raw features, its file, and which one a run gives."""

import json
import random
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from handgrad.classifier import KEY, Classifier, classifier_of_run
from handgrad.errors import InputError
from handgrad.estimator import load
from handgrad.export import as_sklearn
from handgrad.models.logistic_regression import LogisticRegression
from handgrad.models.softmax_regression import SoftmaxRegression
from handgrad.runs.checkpoint_file import sealed
from handgrad.runs.folder import BEST, LAST, RESULTS
from handgrad.runs.sweep import SWEEP
from tests.finished import L2, classifier_of, finished_run

INPUT = torch.randn(20, 5, generator=torch.Generator().manual_seed(1))
KINDS = [("softmax", ["a", "b", "c"], SoftmaxRegression), ("softmax", [4, 7], SoftmaxRegression)]
KINDS += [("logistic", [3, 2], LogisticRegression)]


@pytest.mark.parametrize(("task", "classes", "model"), KINDS, ids=["softmax", "two", "sigmoid"])
def test_probabilities_and_decisions_are_the_models(task, classes, model):
    found = classifier_of(classes, task=task)
    logits = found.logits(INPUT)
    assert torch.equal(logits, INPUT.double() @ found.weight.t() + found.bias)
    p = found.probabilities(logits)
    expected = logits.softmax(1) if task == "softmax" else torch.cat((1 - logits.sigmoid(), logits.sigmoid()), 1)
    torch.testing.assert_close(p, expected, rtol=0, atol=1e-15)
    assert torch.equal(found.decide(logits), model.decide(logits[None])[0])
    weight, bias = found.as_softmax()
    assert weight.shape == (len(classes), 5)
    torch.testing.assert_close((INPUT.double() @ weight.t() + bias).softmax(1), p, rtol=0, atol=1e-15)


def test_several_labels_have_a_sigmoid_each_and_no_class(tmp_path, monkeypatch):
    found = classifier_of(["a", "b", "c"], task="multilabel")
    logits = found.logits(INPUT)
    assert torch.equal(found.probabilities(logits), logits.sigmoid())
    assert torch.equal(found.decide(logits), (logits > 0).long())
    told = "the run is of task=multilabel, several labels a sample; accepted of it are format=onnx, npz and torch"
    finished_run(tmp_path, found)
    monkeypatch.setitem(sys.modules, "skops", None)  # what is refused asks for no package first
    for use, what in (
        (found.as_softmax, "format=sklearn"),
        (lambda: as_sklearn(found), "format=sklearn"),
        (lambda: load(tmp_path), "handgrad.load"),
    ):
        with pytest.raises(InputError, match=f"^{what}: {told}$"):
            use()


def test_rows_are_divided_by_their_lengths_where_training_did_it():
    found = classifier_of([0, 1, 2], unit_rows=True)
    far = torch.cat((1000 * INPUT, torch.zeros(1, 5)))
    expected = torch.nn.functional.normalize(far.double()) @ found.weight.t() + found.bias
    torch.testing.assert_close(found.logits(far), expected, rtol=1e-12, atol=1e-12)


def test_a_file_gives_the_same_classifier_and_has_the_same_bytes(tmp_path):
    chosen = classifier_of(["ä", "b c"], feature_names=list("vwxyz"), files={"x.npz": "ab"}, measures={"val_loss": 0.1})
    (tmp_path / "twice").mkdir()
    for folder in (tmp_path, tmp_path / "twice"):
        chosen.save(folder)
    found = Classifier.load(tmp_path / "model.safetensors")
    assert found.about() == chosen.about()
    assert torch.equal(found.weight, chosen.weight)
    assert torch.equal(found.bias, chosen.bias)
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()


def test_people_and_other_programs_read_it(tmp_path):
    chosen = classifier_of([0, 1, 2])
    chosen.save(tmp_path)
    shown = json.loads((tmp_path / "model.json").read_text())
    assert shown == chosen.about() | {"shapes": {"weight": [3, 5], "bias": [3]}, "dtype": "float64"}
    with safe_open(tmp_path / "model.safetensors", "np") as opened:
        assert opened.get_tensor("weight").tolist() == chosen.weight.tolist()
        about = json.loads(opened.metadata()[KEY])
    assert (about["l2"], about["C"], about["gap"], about["classes"]) == (0.1, 0.5, 1e-7, [0, 1, 2])


def test_every_flipped_byte_is_detected(tmp_path):
    classifier_of([0, 1, 2]).save(tmp_path)
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    for offset in random.Random(0).sample(range(len(content)), 150):
        path.write_bytes(content[:offset] + bytes([content[offset] ^ 1 << offset % 8]) + content[offset + 1 :])
        with pytest.raises(InputError, match=r"model\.safetensors: damaged"):
            Classifier.load(path)


def test_a_file_of_another_version_is_told(tmp_path):
    class Later(Classifier):
        def about(self):
            return super().about() | {"temperature": 1.0}

    path = tmp_path / "model.safetensors"
    chosen = classifier_of([0, 1], versions={"handgrad": "9.0"})
    path.write_bytes(Later(**vars(chosen)).as_safetensors())
    with pytest.raises(InputError, match=r"written by handgrad 9\.0, which this one does not read"):
        Classifier.load(path)


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def done(tmp_path, monkeypatch):
    """A finished run in ``outputs/run``."""
    monkeypatch.chdir(tmp_path)
    return finished_run(tmp_path / "outputs" / "run", classifier_of(["a", "b", "c"], files={"x.npz": "ab"}))


def test_a_run_gives_its_selected_classifier(done):
    chosen = classifier_of(["a", "b", "c"])
    for l2 in (None, 0.1):
        found = classifier_of_run("outputs/run", l2)
        assert torch.equal(found.weight, chosen.weight)
        assert (found.l2, found.C, found.gap) == (0.1, 0.5, 1e-7)


def test_and_any_other_of_its_path(done):
    chosen = classifier_of(["a", "b", "c"])
    found = classifier_of_run(done, 0.01)
    assert torch.equal(found.weight, 0.01 * chosen.weight)
    assert torch.equal(found.bias, 0.01 * chosen.bias)
    assert (found.l2, found.C, found.gap) == (0.01, 100, 1e-8)
    assert (found.classes, found.files) == (["a", "b", "c"], {"x.npz": "ab"})


def refusal(folder, l2=None) -> str:
    with pytest.raises(InputError) as error:
        classifier_of_run(folder, l2)
    return str(error.value)


def test_an_l2_that_is_none_of_the_run_is_told_the_nearest(done):
    assert refusal("outputs/run", 0.05) == "l2=0.05: none of this run; accepted are 0.01, 0.1, 1"


def test_folders_that_are_no_finished_run(done):
    accepted = "accepted is the folder of a finished run, like outputs/<run>"
    assert refusal("outputs/runn") == f"run=outputs/runn: no such folder; {accepted}; did you mean 'run'?"
    assert refusal("outputs") == f"run=outputs: no results.csv there; {accepted}"
    (done.parent / SWEEP).touch()
    assert refusal("outputs") == "run=outputs: a sweep; accepted is one of its jobs, like outputs/run"
    (done / RESULTS).unlink()
    (done / LAST).touch()
    assert refusal(done).endswith("has not finished; python train.py resume=outputs/run goes on with it")
    (done / "failed.txt").write_text("no such file\n")
    assert "the run failed (no such file)" in refusal(done)


def test_runs_that_are_damaged(done):
    shutil.copytree(done, done.parent / "older")
    (done.parent / "older" / "model.safetensors").unlink()
    assert "outputs/older/model.safetensors: missing; accepted is a run of this version" in refusal("outputs/older")
    (done.parent / "older" / BEST).unlink()
    replace(classifier_of([0, 1, 2]), l2=0.1).save(done.parent / "older")
    assert "best.ckpt: missing; it holds all l2 values; accepted without it is l2=0.1" in refusal("outputs/older", 1)
    (done / BEST).write_bytes((done / BEST).read_bytes()[:-1])
    assert "best.ckpt: damaged" in refusal(done, L2[0])
    finished_run(done.parent / "other", classifier_of([0, 1]))
    shutil.copy(done.parent / "other" / BEST, done / BEST)
    assert "it is not of the run that results.csv and model.safetensors are of" in refusal(done, L2[0])
    (done / "results.csv").write_text("l2,val_accuracy\n1\n")
    assert refusal(done) == "outputs/run/results.csv: damaged, or no results of a run"


WRONG = {
    "NaN": {"weight": torch.full((3, 5), torch.nan)},
    "infinite": {"bias": torch.full((3,), torch.inf)},
    "flat": {"weight": torch.zeros(5)},
    "other outputs": {"weight": torch.zeros(2, 5), "bias": torch.zeros(2)},
    "other bias": {"bias": torch.zeros(2)},
    "no classes": {"classes": []},
    "classes of another type": {"classes": 3},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_what_is_whole_but_no_classifier_is_told(change, done):
    replace(classifier_of(["a", "b", "c"]), **change).save(done)
    assert "outputs/run/model.safetensors: " in refusal(done)


CHECKPOINTS = [[], 5, {}, {"state_dict": 5}, {"state_dict": {"weight": torch.zeros(3, 3, 5)}, "hyper_parameters": []}]
CHECKPOINTS += [{"state_dict": state, "hyper_parameters": {"l2": L2}} for state in ({}, {"weight": 1}, [])]
NAN = {"weight": torch.full((3, 3, 5), torch.nan), "bias": torch.zeros(3, 3)}
CHECKPOINTS += [{"state_dict": NAN, "hyper_parameters": {"l2": L2}}]


@pytest.mark.parametrize("content", CHECKPOINTS, ids=range(len(CHECKPOINTS)))
def test_a_checkpoint_that_is_whole_but_of_no_run_is_told(content, done):
    (done / BEST).write_bytes(sealed(content))
    assert "outputs/run/checkpoints/best.ckpt: " in refusal(done, L2[0])
