"""A classifier in other formats gives the same probabilities there, by the packages that read them."""

import io
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import skops.io
import torch

from handgrad import export as exporting
from handgrad.classifier import Classifier
from handgrad.cli.words import FORMATS as NAMES
from handgrad.errors import InputError
from handgrad.export import FORMATS, as_npz, as_onnx, as_sklearn, as_torch, export, main
from tests.finished import classifier_of, finished_run

INPUT = torch.randn(50, 5, generator=torch.Generator().manual_seed(1))
KINDS = {
    "softmax": classifier_of(["b", "a", "c, d"]),
    "two classes": classifier_of([4, 7]),
    "sigmoid": classifier_of([3, 2], task="logistic"),
    "of length 1": classifier_of([0, 1, 2], unit_rows=True),
    "no penalty": classifier_of([0, 1], l2=0.0, C=None, gap=None),
}
SEVERAL = {
    "names": classifier_of(["cat", "dog", "c, d"], task="multilabel"),
    "two": classifier_of([0, 1], task="multilabel"),
    "of length 1": classifier_of([0, 1, 2], task="multilabel", unit_rows=True),
}
TWO = SEVERAL["two"]
SEVERAL["float32"] = replace(TWO, weight=TWO.weight.float(), bias=TWO.bias.float())


def ours(classifier: Classifier) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities and names of classes."""
    logits = classifier.logits(INPUT)
    return classifier.probabilities(logits).numpy(), np.array(classifier.classes)[classifier.decide(logits)]


@pytest.mark.parametrize("rows", [1, 50])
@pytest.mark.parametrize("kind", KINDS)
def test_onnxruntime_says_the_same_for_any_number_of_rows(kind, rows):
    classifier = KINDS[kind]
    session = onnxruntime.InferenceSession(as_onnx(classifier), providers=["CPUExecutionProvider"])
    label, p, logits = session.run(["label", "probabilities", "logits"], {"input": INPUT[:rows].numpy()})
    expected, names = ours(classifier)
    assert np.abs(p - expected[:rows]).max() < 1e-6
    assert label.tolist() == names[:rows].tolist()
    assert np.abs(torch.from_numpy(logits).softmax(1).numpy() - expected[:rows]).max() < 1e-6
    assert [node.name for node in session.get_inputs()] == ["input"]
    assert session.get_inputs()[0].shape == ["N", 5]


@pytest.mark.parametrize("rows", [1, 50])
@pytest.mark.parametrize("kind", SEVERAL)
def test_onnxruntime_says_the_same_of_several_labels(kind, rows):
    classifier = SEVERAL[kind]
    session = onnxruntime.InferenceSession(as_onnx(classifier), providers=["CPUExecutionProvider"])
    label, p, logits = session.run(["label", "probabilities", "logits"], {"input": INPUT[:rows].numpy()})
    expected = classifier.logits(INPUT[:rows])
    assert np.abs(p - expected.sigmoid().numpy()).max() < 1e-6
    assert np.abs(logits - expected.numpy()).max() < 1e-5
    assert label.dtype == np.int64
    assert label.tolist() == (expected > 0).long().tolist()
    assert session.get_outputs()[0].shape == ["N", len(classifier.classes)]


def test_raw_features_far_from_zero_keep_their_digits_in_onnx():
    """A normalization folded into the weights leaves large products, whose sum is small."""
    classifier = KINDS["softmax"]
    shift = 1e4 * torch.ones(5).double()
    raw = Classifier(classifier.weight, classifier.bias - classifier.weight @ shift, "softmax", [0, 1, 2], l2=0.1)
    session = onnxruntime.InferenceSession(as_onnx(raw), providers=["CPUExecutionProvider"])
    input = INPUT + shift.float()
    _, p, _ = session.run(None, {"input": input.numpy()})
    assert np.abs(p - raw.probabilities(raw.logits(input)).numpy()).max() < 1e-6


def test_the_same_classifier_gives_the_same_bytes_and_tells_its_classes():
    classifier = KINDS["softmax"]
    assert as_onnx(classifier) == as_onnx(classifier)
    model = onnx.load_from_string(as_onnx(classifier))
    assert {prop.key: prop.value for prop in model.metadata_props}["classes"] == '["b", "a", "c, d"]'


@pytest.mark.parametrize("kind", KINDS)
def test_scikit_learn_says_the_same_and_nothing_has_to_be_trusted(kind):
    classifier = KINDS[kind]
    content = as_sklearn(classifier)
    assert skops.io.get_untrusted_types(data=content) == []
    model = skops.io.loads(content)
    expected, names = ours(classifier)
    order = np.argsort(np.array(classifier.classes))
    assert model.classes_.tolist() == sorted(classifier.classes)
    assert np.abs(model.predict_proba(INPUT.numpy()) - expected[:, order]).max() < 1e-6
    assert model.predict(INPUT.numpy()).tolist() == names.tolist()


def test_two_classes_are_one_sigmoid_in_scikit_learn():
    weight = KINDS["two classes"].weight
    model = skops.io.loads(as_sklearn(KINDS["two classes"]))
    assert model.coef_.shape == (1, 5)
    assert model.coef_.tolist() == (weight[1:] - weight[:1]).tolist()
    assert model.C == 0.5
    assert np.isinf(skops.io.loads(as_sklearn(KINDS["no penalty"])).C)


@pytest.mark.parametrize("classifier", [KINDS["softmax"], KINDS["sigmoid"], SEVERAL["names"]])
def test_numpy_and_torch_have_the_weights(classifier):
    with np.load(io.BytesIO(as_npz(classifier))) as found:
        assert found["weight"].tolist() == classifier.weight.tolist()
        assert found["classes"].tolist() == classifier.classes
    linear = torch.nn.Linear(5, len(classifier.weight)).double()
    linear.load_state_dict(torch.load(io.BytesIO(as_torch(classifier)), weights_only=True))
    p = classifier.probabilities(linear(INPUT.double()).detach())
    assert (p - classifier.probabilities(classifier.logits(INPUT))).abs().max() < 1e-15


def test_a_model_that_computes_something_else_is_not_written(monkeypatch):
    real = exporting.onnx_model

    def wrong(onnx, classifier):
        return real(onnx, Classifier(-classifier.weight, classifier.bias, "softmax", classifier.classes, l2=0.1))

    monkeypatch.setattr(exporting, "onnx_model", wrong)
    with pytest.raises(RuntimeError, match="onnxruntime's probabilities are not those of the classifier"):
        as_onnx(KINDS["softmax"])


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_words_name_each_format():
    assert tuple(FORMATS) == NAMES


@pytest.mark.parametrize("format", FORMATS)
def test_a_runs_classifier_is_written_into_its_folder(format, tmp_path, capsys):
    finished_run(tmp_path, KINDS["of length 1"])
    given = {"run": str(tmp_path), "format": format, "out": None, "l2": None, "overwrite": None}
    main(given)
    out = tmp_path / f"model{FORMATS[format].ending}"
    content = out.read_bytes()
    told = capsys.readouterr().out
    assert f"l2=0.1, 5 features, 3 classes. File: {out}" in told
    assert ("divided by its length first" in told) == (format in ("npz", "torch"))
    with pytest.raises(InputError, match="it is there already; accepted is another file, or overwrite=true"):
        main(given)
    main(given | {"l2": 1.0, "overwrite": True})
    assert out.read_bytes() != content


@pytest.mark.parametrize("format", ["onnx", "npz", "torch"])
def test_a_run_of_several_labels_is_written_and_its_weights_are_told_to_be_sigmoids(format, tmp_path, capsys):
    finished_run(tmp_path, SEVERAL["names"])
    main({"run": str(tmp_path), "format": format, "out": None, "l2": 0.01, "overwrite": None})
    told = capsys.readouterr().out
    assert "l2=0.01, 5 features, 3 labels. File: " in told
    assert ("the sigmoid of its own logit" in told) == (format != "onnx")


@pytest.mark.parametrize(("format", "missing"), [("onnx", "onnx"), ("onnx", "onnxruntime"), ("sklearn", "skops")])
def test_a_missing_package_is_told(format, missing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, f"{missing}.io", raising=False)
    with pytest.raises(InputError) as error:
        export(KINDS["softmax"], format, tmp_path / f"model{FORMATS[format].ending}")
    assert str(error.value) == f"{missing} is not installed: pip install '.[export]'"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", FORMATS)
def test_another_formats_ending_is_refused(format, tmp_path):
    for name in {"x.csv", "x", *(f"x{other.ending}" for other in FORMATS.values())} - {f"x{FORMATS[format].ending}"}:
        with pytest.raises(InputError) as error:
            export(KINDS["softmax"], format, tmp_path / name)
        ending = FORMATS[format].ending
        assert (
            str(error.value) == f"out={tmp_path / name}: accepted with format={format} is a file that ends in {ending}"
        )
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InputError, match=r"no folder .*missing; accepted is a file in a folder that is there"):
        export(KINDS["softmax"], "npz", tmp_path / "missing" / "model.npz")
