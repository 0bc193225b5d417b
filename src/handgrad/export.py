"""A run's classifier in formats that others read: ``python -m handgrad.export run=outputs/<run> format=onnx``.

Each holds the classifier for features as they are, and its probabilities are the same as those of ``predict.py``.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from handgrad.classifier import Classifier, classifier_of_run
from handgrad.cli.words import EXPORT, command
from handgrad.errors import InputError
from handgrad.files import replace_file

USAGE = """
Writes a run's classifier, for features as they are, in a format that others read.

  python -m handgrad.export run=outputs/<run> format=onnx
  python -m handgrad.export run=outputs/<run> format=sklearn l2=0.01 out=probe.skops

onnx: input (N, D) float32; outputs label, probabilities and logits. sklearn: a LogisticRegression, saved by skops;
not of task=multilabel. npz: weight, bias, classes, l2, unit_rows. torch: the state_dict of a torch.nn.Linear. A file
that is there already is replaced with overwrite=true alone.
"""
OPSET = 17


class Format(NamedTuple):
    """A format.

    Attributes:
        ending: of its files.
        content: returns the content of a file.
    """

    ending: str
    content: Callable[[Classifier], bytes]


def export(classifier: Classifier, format: str, out: Path, overwrite: bool = False) -> None:
    """Writes a classifier as a file.

    Args:
        format: a key of ``FORMATS``.

    Raises:
        InputError: a package is missing, the file's ending is not the format's, or there is such a file and it is not
            to be replaced.
        OSError: it could not be written.
    """
    if out.suffix.lower() != FORMATS[format].ending:
        raise InputError(f"out={out}: accepted with format={format} is a file that ends in {FORMATS[format].ending}")
    if out.exists() and not overwrite:
        raise InputError(f"out={out}: it is there already; accepted is another file, or overwrite=true")
    if not out.parent.is_dir():
        raise InputError(f"out={out}: no folder {out.parent}; accepted is a file in a folder that is there")
    replace_file(out, FORMATS[format].content(classifier))


def as_onnx(classifier: Classifier) -> bytes:
    """Returns an ONNX model that has been run once, by onnxruntime, and gave the same probabilities.

    Input ``input (N, D)`` float32, N as it comes. Outputs ``label (N,)`` (int64, or text), ``probabilities (N, C)``
    and ``logits (N, C)``, float32; those of a sigmoid are 0 and its logit. Of several labels ``label (N, K)`` is int64,
    0 or 1. Products are in the dtype of the weights, float64 where they are an exact optimum.

    Raises:
        InputError: onnx or onnxruntime is missing.
    """
    onnx, onnxruntime = imported("onnx", "onnxruntime")
    content = onnx_model(onnx, classifier).SerializeToString(deterministic=True)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    input = torch.linspace(-1, 1, 3 * classifier.num_features).view(3, -1)
    _, found, _ = session.run(None, {"input": input.numpy()})
    expected = classifier.probabilities(classifier.logits(input))
    if not np.allclose(found, expected.numpy(), rtol=0, atol=1e-6):
        raise RuntimeError("onnxruntime's probabilities are not those of the classifier")
    return content


def onnx_model(onnx: Any, classifier: Classifier) -> Any:
    """Returns the model of ``as_onnx``, checked by ``onnx.checker``."""
    helper, kinds = onnx.helper, onnx.TensorProto
    several = classifier.multilabel
    of_logits = (classifier.weight, classifier.bias) if several else classifier.as_softmax()
    weight, bias = (tensor.numpy() for tensor in of_logits)
    dtype = helper.np_dtype_to_tensor_dtype(weight.dtype)
    names = np.array(classifier.classes, dtype=object if isinstance(classifier.classes[0], str) else np.int64)
    constants = {"weight": weight, "bias": bias, "classes": names}
    constants |= {"one": np.ones(1, weight.dtype), "zero": np.zeros(1, weight.dtype)}
    x = "unit" if classifier.unit_rows else "x"
    nodes = [helper.make_node("Cast", ["input"], ["x"], to=dtype)]
    nodes += unit_rows(helper, kinds.BOOL) if classifier.unit_rows else []
    nodes += [
        helper.make_node("Gemm", [x, "weight", "bias"], ["z"], transB=1),
        *(several_labels(helper, kinds.INT64) if several else one_label(helper)),
        helper.make_node("Cast", ["p"], ["probabilities"], to=kinds.FLOAT),
        helper.make_node("Cast", ["z"], ["logits"], to=kinds.FLOAT),
    ]
    count, features = weight.shape
    kind = kinds.STRING if names.dtype == object and not several else kinds.INT64
    outputs = [helper.make_tensor_value_info("label", kind, ["N", count] if several else ["N"])]
    outputs += [helper.make_tensor_value_info(name, kinds.FLOAT, ["N", count]) for name in ("probabilities", "logits")]
    inputs = [helper.make_tensor_value_info("input", kinds.FLOAT, ["N", features])]
    used = {name for node in nodes for name in node.input}
    initial = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items() if name in used]
    graph = helper.make_graph(nodes, "classifier", inputs, outputs, initial)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model_gen_version(graph, opset_imports=opset, producer_name="handgrad")
    helper.set_model_props(
        model, {"classes": json.dumps(classifier.classes, ensure_ascii=False), "l2": str(classifier.l2)}
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def one_label(helper: Any) -> list[Any]:
    """Returns the nodes that make of logits ``z`` the probabilities ``p`` of the classes, and the likeliest's name."""
    return [
        helper.make_node("Softmax", ["z"], ["p"], axis=1),
        helper.make_node("ArgMax", ["z"], ["index"], axis=1, keepdims=0),
        helper.make_node("Gather", ["classes", "index"], ["label"]),
    ]


def several_labels(helper: Any, integer: int) -> list[Any]:
    """Returns the nodes that make of logits ``z`` the probabilities ``p`` of the labels, and which are above 1/2."""
    return [
        helper.make_node("Sigmoid", ["z"], ["p"]),
        helper.make_node("Greater", ["z", "zero"], ["has"]),
        helper.make_node("Cast", ["has"], ["label"], to=integer),
    ]


def unit_rows(helper: Any, truth: int) -> list[Any]:
    """Returns the nodes that divide each row of ``x`` by its length; a row of zeros stays."""
    return [
        helper.make_node("ReduceL2", ["x"], ["length"], axes=[1], keepdims=1),
        helper.make_node("Cast", ["length"], ["is_long"], to=truth),
        helper.make_node("Where", ["is_long", "length", "one"], ["divisor"]),
        helper.make_node("Div", ["x", "divisor"], ["unit"]),
    ]


def as_sklearn(classifier: Classifier) -> bytes:
    """Returns a scikit-learn ``LogisticRegression`` as skops saves it, which loads with nothing trusted besides.

    ``classes_`` are sorted, as scikit-learn has them; two classes are one sigmoid. Where rows are divided by their
    lengths, it is a pipeline of a ``Normalizer`` and the regression.

    Raises:
        InputError: samples have several labels, or skops is missing.
    """
    classifier.check_one_label("format=sklearn")
    (skops,) = imported("skops.io")
    return skops.dumps(sklearn_model(classifier))


def sklearn_model(classifier: Classifier) -> Any:
    """Returns the estimator of ``as_sklearn``."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    weight, bias = (tensor.double().numpy() for tensor in classifier.as_softmax())
    names = np.array(classifier.classes)
    order = np.argsort(names)
    weight, bias = weight[order], bias[order]
    if len(names) == 2:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    model = LogisticRegression(C=np.inf if classifier.C is None else classifier.C)
    model.classes_, model.coef_, model.intercept_ = names[order], weight, bias
    model.n_features_in_ = classifier.num_features
    model.n_iter_ = np.zeros(1, dtype=np.int32)
    if not classifier.unit_rows:
        return model
    normalizer = Normalizer().fit(np.ones((1, classifier.num_features)))
    return make_pipeline(normalizer, model)


def as_npz(classifier: Classifier) -> bytes:
    """Returns ``weight (K, D)``, ``bias (K,)``, ``classes (C,)``, ``l2`` and ``unit_rows`` as NumPy's archive."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        weight=classifier.weight.numpy(),
        bias=classifier.bias.numpy(),
        classes=np.array(classifier.classes),
        l2=np.float64(classifier.l2),
        unit_rows=np.bool_(classifier.unit_rows),
    )
    return buffer.getvalue()


def as_torch(classifier: Classifier) -> bytes:
    """Returns the state_dict of a ``torch.nn.Linear(D, K)``, in the dtype of the weights."""
    buffer = io.BytesIO()
    torch.save({"weight": classifier.weight, "bias": classifier.bias}, buffer)
    return buffer.getvalue()


def imported(*names: str) -> list[Any]:
    """Returns modules; an InputError tells how to get one that is missing."""
    from importlib import import_module

    try:
        return [import_module(name) for name in names]
    except ImportError as error:
        missing = (error.name or names[0]).partition(".")[0]
        raise InputError(f"{missing} is not installed: pip install '.[export]'") from error


FORMATS = {
    "onnx": Format(".onnx", as_onnx),
    "sklearn": Format(".skops", as_sklearn),
    "npz": Format(".npz", as_npz),
    "torch": Format(".pt", as_torch),
}


def main(given: dict[str, Any]) -> None:
    """Writes what the words ask for."""
    classifier = classifier_of_run(given["run"], given["l2"])
    format = given["format"]
    out = Path(given["out"] or Path(given["run"]) / f"model{FORMATS[format].ending}")
    export(classifier, format, out, bool(given["overwrite"]))
    if classifier.unit_rows and format in ("npz", "torch"):
        print("Each row of features is to be divided by its length first, which these weights do not do.")
    if classifier.multilabel and format in ("npz", "torch"):
        print("Each label's probability is the sigmoid of its own logit, of which these are the weights.")
    if classifier.scaling:
        print(f"Features are taken to be {classifier.scaling}, as in training.")
    outputs = f"{len(classifier.classes)} {'labels' if classifier.multilabel else 'classes'}"
    print(f"l2={classifier.l2:g}, {classifier.num_features} features, {outputs}. File: {out}")


if __name__ == "__main__":
    with command(USAGE, EXPORT) as given:
        main(given)
