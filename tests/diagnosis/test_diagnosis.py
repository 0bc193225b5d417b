"""Each mistake that is planted in the code is named, of the argument it is in and by its line; what is right is not."""

import importlib
import inspect
import re
from pathlib import Path

import pytest
import torch

from handgrad.diagnosis.diagnosis import PARTS, Verdict, diagnosed, told
from handgrad.diagnosis.places import SECTIONS
from handgrad.functions.objective import LOGISTIC, MULTILABEL, SOFTMAX, Loss, Objective

ROOT = Path(__file__).parents[2]
L2 = (0.0, 0.02, 2.0)
SAMPLES, FEATURES = 11, 5
TOLERANCE = 1e-8
KINDS = {"softmax": (SOFTMAX, 4), "logistic": (LOGISTIC, 1), "multilabel": (MULTILABEL, 3)}
FILES = {"softmax": "linear_cross_entropy", "logistic": "linear_binary_cross_entropy"}
FILES["multilabel"] = FILES["logistic"]
Change = tuple[str, str]


def samples(loss: Loss, outputs: int, samples: int = SAMPLES, features: int = FEATURES, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    input = torch.rand(samples, features, generator=generator)
    classes, several = 2 if loss.sigmoids else outputs, loss.sigmoids and outputs > 1
    return input, torch.randint(classes, (samples, outputs) if several else (samples,), generator=generator)


def found(kind: str, l2=L2, penalize_bias: bool = True, hessian: bool = False) -> list[Verdict]:
    loss, outputs = KINDS[kind]
    objective = Objective(loss, torch.tensor(l2, dtype=torch.float64), penalize_bias)
    return diagnosed(objective, outputs, *samples(loss, outputs), TOLERANCE, hessian)


def wrong(verdicts: list[Verdict]) -> dict[str, str]:
    """Returns the mistakes by part, joined where a part has several."""
    told: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.mistake is not None:
            told.setdefault(verdict.part, []).append(verdict.mistake)
    return {part: "; ".join(mistakes) for part, mistakes in told.items()}


def lines(verdicts: list[Verdict]) -> set[str]:
    """Returns the lines of code that verdicts blame."""
    blamed = set()
    for verdict in verdicts:
        if verdict.mistake is not None:
            file, _, number = verdict.place.rpartition(":")
            blamed.add((ROOT / file).read_text(encoding="utf-8").splitlines()[int(number) - 1].strip())
    return blamed


def plant(monkeypatch, name: str, *changes: Change) -> None:
    """Lets the functions of a module do what its source says with ``changes``, each (old, new) within a line."""
    module = importlib.import_module(f"handgrad.functions.{name}")
    source = inspect.getsource(module)
    for old, new in changes:
        assert old in source, old
        source = source.replace(old, new)
    changed = {"__name__": module.__name__}
    exec(compile(source, str(module.__file__), "exec"), changed)
    for space, other in [(vars(module), changed), *classes(module, changed)]:
        for key, function in functions(space).items():
            if function.__module__ == module.__name__ and key in functions(other):
                monkeypatch.setattr(function, "__code__", functions(other)[key].__code__)


def functions(space) -> dict:
    items = {key: getattr(item, "__func__", item) for key, item in space.items()}
    return {key: inspect.unwrap(item) for key, item in items.items() if inspect.isfunction(item)}


def classes(module, changed: dict) -> list[tuple]:
    own = {key: item for key, item in vars(module).items() if isinstance(item, type) and key in changed}
    return [(vars(item), vars(changed[key])) for key, item in own.items() if item.__module__ == module.__name__]


# --- what is right ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("l2", [L2, (0.0,), (1e-9, 1e3)], ids=["a path", "none", "tiny and huge"])
@pytest.mark.parametrize("penalize_bias", [False, True])
def test_what_is_right_is_not_blamed(kind, l2, penalize_bias):
    verdicts = found(kind, l2, penalize_bias, hessian=True)
    assert wrong(verdicts) == {}
    assert {verdict.part for verdict in verdicts} == set(PARTS)
    assert told(verdicts) == ["logits, loss, weight, bias, input, l2, Hessian: right"]


@pytest.mark.parametrize("sizes", [(1, 1), (1, 3), (2, 1), (2, 2), (600, 3)])
@pytest.mark.parametrize(("loss", "outputs"), [(SOFTMAX, 2), (SOFTMAX, 3), (LOGISTIC, 1), (MULTILABEL, 2)])
def test_what_is_right_is_not_blamed_for_few_samples_and_many(loss, outputs, sizes):
    objective = Objective(loss, torch.tensor([0.1], dtype=torch.float64))
    assert wrong(diagnosed(objective, outputs, *samples(loss, outputs, *sizes), TOLERANCE, hessian=True)) == {}


# --- a mistake in one argument ---------------------------------------------------------------------------------------

TIMES_N = "the 1/N is missing (11 times what it should be)"
DWEIGHT, DBIAS, DINPUT = "dweight = dz @ input.to(weight.dtype)", "dbias = dz.sum(2)", "dinput = dz"
SUM = "dz.reshape(-1, z.shape[2]).t() @ weight.flatten(0, 1)"
ARGUMENTS: dict[str, tuple[Change, str, str]] = {
    "sign of dweight": ((DWEIGHT, "dweight = -dz @ input"), "weight", "the sign is wrong"),
    "dweight zero": ((DWEIGHT, "dweight = 0 * dz @ input"), "weight", "zero"),
    "dweight halved": ((DWEIGHT, "dweight = dz @ input / 2"), "weight", "half of what it should be"),
    "dweight divided by N": ((DWEIGHT, "dweight = dz @ input / len(input)"), "weight", "divided by N once too often ("),
    "dweight slightly off": ((DWEIGHT, "dweight = dz @ input * 1.000001"), "weight", "1.000001 times what it should"),
    "sample left out of dweight": ((DWEIGHT, "dweight = dz[:, :, 1:] @ input[1:]"), "weight", "sample 0 is left out"),
    "last sample left out of dweight": (
        (DWEIGHT, "dweight = dz[:, :, :-1] @ input[:-1]"),
        "weight",
        "sample 10 is left",
    ),
    "dweight of one sample": (
        (DWEIGHT, "dweight = dz[:, :, 4:5] @ input[4:5]"),
        "weight",
        "sample 4 alone, not the sum",
    ),
    "x forgotten": ((DWEIGHT, "dweight = dz @ torch.ones_like(input)"), "weight", "the input is not a factor"),
    "features shifted": ((DWEIGHT, "dweight = dz @ input.roll(1, 1)"), "weight", "the features are shifted by one"),
    "features reversed": ((DWEIGHT, "dweight = dz @ input.flip(1)"), "weight", "the order of the features is reversed"),
    "a feature lost": (
        (DWEIGHT, "dweight = dz @ (input * (torch.arange(input.shape[1]) != 2))"),
        "weight",
        "zero in feature 2 alone",
    ),
    "classifiers swapped": (
        (DWEIGHT, "dweight = (dz @ input)[[1, 0, *range(2, len(dz))]]"),
        "weight",
        "classifiers 0 and 1 are swapped",
    ),
    "sign and 1/N": (
        (DWEIGHT, "dweight = -dz @ input * len(input)"),
        "weight",
        f"{TIMES_N}, and the sign is wrong",
    ),
    "nonsense": ((DWEIGHT, "dweight = (dz @ input).exp()"), "weight", "wrong, by no constant ratio"),
    "not a number": ((DWEIGHT, "dweight = dz @ input / 0"), "weight", "not a number in "),
    "dbias doubled": ((DBIAS, "dbias = 2 * dz.sum(2)"), "bias", "twice what it should be"),
    "dbias zero": ((DBIAS, "dbias = 0 * dz.sum(2)"), "bias", "zero"),
    "dbias missing": ((DBIAS, "dbias = None and dz.sum(2)"), "bias", "backward returns None"),
    "dbias a mean": ((DBIAS, "dbias = dz.mean(2)"), "bias", "divided by N once too often ("),
    "dbias of one sample": ((DBIAS, "dbias = dz[:, :, 0]"), "bias", "sample 0 alone, not the sum over all"),
    "sample left out of dbias": ((DBIAS, "dbias = dz[:, :, 1:].sum(2)"), "bias", "sample 0 is left out"),
    "dinput negated": ((DINPUT, "dinput = -dz"), "input", "the sign is wrong"),
    "dinput missing": (
        (f"{DINPUT}.reshape", "dinput = None if z is not None else dz.reshape"),
        "input",
        "backward returns None",
    ),
    "sample left out of dinput": (
        (f"dinput = {SUM}", f"dinput = (torch.arange(z.shape[2]) != 6).unsqueeze(1) * ({SUM})"),
        "input",
        "sample 6 is left out",
    ),
    "dinput of one classifier": ((SUM, "dz[1].t() @ weight[1]"), "input", "of classifier 1 alone, not the sum over"),
    "dinput a mean": ((f"dinput = {SUM}", f"dinput = {SUM} / 3"), "input", "divided by the number of classifiers ("),
    "samples shifted": ((f"dinput = {SUM}", f"dinput = ({SUM}).roll(1, 0)"), "input", "the samples are shifted by one"),
}


@pytest.mark.parametrize("kind", ["softmax", "logistic"])
@pytest.mark.parametrize(("change", "part", "mistake"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_a_mistake_in_one_argument_is_named(change, part, mistake, kind, monkeypatch):
    plant(monkeypatch, FILES[kind], change)
    verdicts = found(kind)
    (told,) = {verdict.mistake for verdict in verdicts if verdict.mistake is not None}
    assert wrong(verdicts).keys() == {part}
    assert told.startswith(mistake)
    (line,) = lines(verdicts)
    assert line.startswith(f"d{part} = ")


@pytest.mark.parametrize("kind", ["softmax", "multilabel"])
def test_two_classes_that_are_swapped_are_named(kind, monkeypatch):
    plant(monkeypatch, FILES[kind], (DWEIGHT, "dweight = (dz @ input)[:, [2, 1, 0, *range(3, z.shape[1])]]"))
    assert wrong(found(kind)) == {"weight": "classes 0 and 2 are swapped"}


@pytest.mark.parametrize("kind", ["softmax", "multilabel"])
def test_one_row_that_is_wrong_is_named(kind, monkeypatch):
    change = "dweight = dz @ input * (2 - (torch.arange(z.shape[1]) != 1).long()).unsqueeze(1)"
    plant(monkeypatch, FILES[kind], (DWEIGHT, change))
    assert wrong(found(kind)) == {"weight": "twice what it should be in class 1 alone"}


def test_of_two_classes_swapped_and_of_the_wrong_sign_are_the_same(monkeypatch):
    """Their two rows are each other's negative."""
    monkeypatch.setitem(KINDS, "softmax", (SOFTMAX, 2))
    plant(monkeypatch, FILES["softmax"], (DWEIGHT, "dweight = (dz @ input).flip(1)"))
    assert wrong(found("softmax")) == {"weight": "the sign is wrong or classes 0 and 1 are swapped"}


# --- a mistake in what the arguments share ---------------------------------------------------------------------------

SCALE, MEANS = (
    "(1 / z.shape[2] if shares is None else shares)",
    {
        "softmax": ("* (-1 / input.shape[0])", "* -1"),
        "logistic": ("losses.sum((1, 2)) / input.shape[0]", "losses.sum((1, 2))"),
    },
)
MINUS = {"softmax": "_softmax_minus_target(z, target) * scale", "logistic": "_sigmoid_minus_target(z, target) * scale"}
P = {
    "softmax": ("return p.scatter_add(1, index, p.new_full(index.shape, -1.0))", "return p"),
    "logistic": ("return t * torch.sigmoid(t * z)", "return torch.sigmoid(z)"),
}
SHARED: dict[str, tuple[dict[str, Change], str, str]] = {
    "1/N missing": (dict.fromkeys(MINUS, (SCALE, "(1 if shares is None else shares)")), TIMES_N, "scale ="),
    "mean over N - 1": (
        dict.fromkeys(MINUS, (SCALE, "(1 / (z.shape[2] - 1) if shares is None else shares)")),
        "divided by N - 1 in place of N (1.1 times what it should be)",
        "scale =",
    ),
    "sign": (dict.fromkeys(MINUS, ("scale = grad_loss", "scale = -grad_loss")), "the sign is wrong", "scale ="),
    "no grad_output": (
        dict.fromkeys(MINUS, ("scale = grad_loss", "scale = torch.ones_like(grad_loss)")),
        "what arrives from above is left out",
        "scale =",
    ),
    "target off by one": (
        {
            "softmax": (MINUS["softmax"], "_softmax_minus_target(z, (target + 1) % z.shape[1]) * scale"),
            "logistic": (MINUS["logistic"], "_sigmoid_minus_target(z, 1 - target) * scale"),
        },
        "the target is off by one class",
        "through_loss =",
    ),
    "p in place of p - y": (P, "p in place of p - y", "through_loss ="),
    "sample left out": (
        {kind: (old, f"(torch.arange(z.shape[2]) != 3) * {old}") for kind, old in MINUS.items()},
        "sample 3 is left out",
        "through_loss =",
    ),
    "sample left out, mean of the rest": (
        {kind: (old, f"{old} * (torch.arange(z.shape[2]) != 3) * 11 / 10") for kind, old in MINUS.items()},
        "sample 3 is left out, and divided by N - 1 in place of N",
        "through_loss =",
    ),
    "sample twice": (
        {kind: (old, f"((torch.arange(z.shape[2]) == 3) + 1) * {old}") for kind, old in MINUS.items()},
        "sample 3 counts twice",
        "through_loss =",
    ),
    "squared": (
        {kind: (old, old.replace("target)", "target).square()")) for kind, old in MINUS.items()},
        "(p - y)^2 in place of p - y",
        "through_loss =",
    ),
    "p (1 - p)": (
        {
            "softmax": (MINUS["softmax"], f"{MINUS['softmax']} * z.softmax(1) * (1 - z.softmax(1))"),
            "logistic": (MINUS["logistic"], f"{MINUS['logistic']} * z.sigmoid() * (1 - z.sigmoid())"),
        },
        "a factor p (1 - p) too many",
        "through_loss =",
    ),
    "of softmax: over the samples": (
        {"softmax": ("p = torch.softmax(z, 1,", "p = torch.softmax(z, 2,")},
        "the softmax runs over the samples",
        "through_loss =",
    ),
    "of softmax: not divided": (
        {"softmax": ("p = torch.softmax(z, 1, dtype=at_least_float32(z))", "p = z.exp()")},
        "e^z in place of p, which the sum over the classes does not divide",
        "through_loss =",
    ),
    "of softmax: sigmoids": (
        {"softmax": ("p = torch.softmax(z, 1, dtype=at_least_float32(z))", "p = z.sigmoid()")},
        "sigmoids in place of the softmax",
        "through_loss =",
    ),
    "of softmax: logarithm": (
        {"softmax": ("p = torch.softmax(z, 1,", "p = torch.log_softmax(z, 1,")},
        "ln p in place of p",
        "through_loss =",
    ),
    "of softmax: the logits": (
        {"softmax": ("p = torch.softmax(z, 1, dtype=at_least_float32(z))", "p = z.clone()")},
        "the logits in place of p",
        "through_loss =",
    ),
    "of softmax: the sample's class alone": (
        {
            "softmax": (
                "return p.scatter_add(1, index, p.new_full(index.shape, -1.0))",
                "return torch.zeros_like(p).scatter(1, index, p.gather(1, index) - 1)",
            )
        },
        "only where y is 1",
        "through_loss =",
    ),
    "of sigmoids: t lost": (
        {"logistic": ("return t * torch.sigmoid(t * z)", "return torch.sigmoid(t * z)")},
        "|p - y| in place of p - y: the factor t is missing",
        "through_loss =",
    ),
    "of sigmoids: the report's (10) and (11)": (
        {"logistic": ("return t * torch.sigmoid(t * z)", "return -torch.sigmoid(t * z)")},
        "the minus of d ln(1 - p) is missing",
        "through_loss =",
    ),
}
OF_KINDS = [
    pytest.param(kind, changes[kind], mistake, code, id=f"{name}-{kind}")
    for name, (changes, mistake, code) in SHARED.items()
    for kind in changes
]


@pytest.mark.parametrize(("kind", "change", "mistake", "code"), OF_KINDS)
def test_a_mistake_in_dz_is_named_once(kind, change, mistake, code, monkeypatch):
    plant(monkeypatch, FILES[kind], change)
    verdicts = found(kind)
    assert wrong(verdicts).keys() == {"weight", "bias", "input"}
    (told,) = set(wrong(verdicts).values())
    assert told.startswith(mistake)
    (line,) = lines(verdicts)
    assert line.startswith(code)


@pytest.mark.parametrize("kind", MINUS)
def test_the_1_over_n_that_is_missing_in_loss_and_gradient_alike_is_named(kind, monkeypatch):
    plant(monkeypatch, FILES[kind], MEANS[kind], (SCALE, "(1 if shares is None else shares)"))
    assert wrong(found(kind)) == dict.fromkeys(("loss", "weight", "bias", "input"), TIMES_N)


@pytest.mark.parametrize("kind", MINUS)
def test_another_target_in_loss_and_gradient_alike_is_named(kind, monkeypatch):
    other = "(target + 1) % z.shape[1]" if kind == "softmax" else "1 - target"
    of_loss = {"softmax": "_index(target, z))\n", "logistic": "losses = F.softplus(_one_minus_2y(target, z)"}[kind]
    changes = [
        (old, old.replace("target, z", f"{other}, z").replace("z, target", f"z, {other}"))
        for old in (of_loss, MINUS[kind])
    ]
    plant(monkeypatch, FILES[kind], *changes)
    mistakes = wrong(found(kind))
    assert mistakes.keys() == {"loss", "weight", "bias", "input"}
    assert all(mistake.startswith("the target is off by one class") for mistake in mistakes.values())


LOSSES = {
    "doubled": ("return loss.to", "return 2 * loss.to", "twice what it should be"),
    "in bits": ("return loss.to", "return 1.4426950408889634 * loss.to", "in bits, not in nats ("),
    "zero": ("return loss.to", "return 0 * loss.to", "zero"),
    "sign": ("return loss.to", "return -loss.to", "the sign is wrong"),
}


@pytest.mark.parametrize("kind", MINUS)
@pytest.mark.parametrize(("old", "new", "mistake"), LOSSES.values(), ids=LOSSES)
def test_a_mistake_in_the_loss_alone_is_named(old, new, mistake, kind, monkeypatch):
    plant(monkeypatch, FILES[kind], (old, new))
    mistakes = wrong(found(kind))
    assert mistakes.keys() == {"loss"}
    assert mistakes["loss"].startswith(mistake)


@pytest.mark.parametrize("kind", MINUS)
def test_a_bias_that_is_missing_in_the_logits_is_named_and_no_gradient_is_blamed_for_it(kind, monkeypatch):
    plant(monkeypatch, FILES[kind], ("z = z + bias.unsqueeze(2)", "z = z + 0 * bias.unsqueeze(2)"))
    assert wrong(found(kind)) == {"logits": "the bias is missing"}


@pytest.mark.parametrize("kind", MINUS)
def test_what_arrives_for_the_logits_and_is_dropped_is_named(kind, monkeypatch):
    old = "return through_loss if grad_z is None else through_loss + grad_z"
    plant(monkeypatch, FILES[kind], (old, "return through_loss"))
    verdicts = found(kind)
    told = "what arrives for the logits is dropped, where gradients arrive for loss and logits"
    assert wrong(verdicts) == dict.fromkeys(("weight", "bias", "input"), told)
    assert lines(verdicts) == {old}


@pytest.mark.parametrize("kind", MINUS)
def test_sample_weights_that_are_left_out_are_named(kind, monkeypatch):
    plant(monkeypatch, FILES[kind], (SCALE, "(1 / z.shape[2])"))
    verdicts = found(kind)
    told = "the sample weights are left out, in the weighted mean"
    assert wrong(verdicts) == dict.fromkeys(("weight", "bias", "input"), told)
    assert {verdict.section for verdict in verdicts if verdict.mistake} == {"sample-weights"}


def test_two_mistakes_are_told_apart(monkeypatch):
    plant(monkeypatch, FILES["softmax"], (DBIAS, "dbias = 2 * dz.sum(2)"), (DINPUT, "dinput = -dz"))
    plant(monkeypatch, "objective", ("add_l2_gradient(dweight, weight, l2, active)", "pass"))
    module = importlib.import_module("handgrad.functions.objective")
    source = Path(module.__file__).read_text(encoding="utf-8").splitlines()
    line = 1 + source.index("        add_l2_gradient(dweight, weight, l2, active)")
    assert told(found("softmax")) == [
        "bias: twice what it should be",
        "  see src/handgrad/functions/linear_cross_entropy.py:107 and docs/derivation.md#softmax-regression-task-1b",
        "input: the sign is wrong",
        "  see src/handgrad/functions/linear_cross_entropy.py:108 and docs/derivation.md#softmax-regression-task-1b",
        "l2: dropped for the weight, in the gradient that trains",
        f"  see src/handgrad/functions/objective.py:{line} and docs/derivation.md#l2-regularization-task-4a",
        "logits, loss, weight: right",
    ]


# --- a mistake in the penalty ----------------------------------------------------------------------------------------

GRADIENT = "dparameter = _like(parameter, grad_output * l2) * parameter"
ADDED = "gradient.addcmul_(_like(parameter, grad_output * l2), parameter.detach())"
VALUE, DL2 = "penalty = (l2 * norms.square()", "dl2 = (grad_output * _half_square_norm(parameter)).to(l2.dtype)"
NORM = "parameter.detach() / parameter.detach().flatten(1).norm(dim=1).reshape(-1, *[1] * (parameter.dim() - 1))"
PENALTY: dict[str, tuple[Change, str]] = {
    "forgotten": ((GRADIENT, f"{GRADIENT} * 0"), "zero, in the gradient of l2_penalty"),
    "doubled": ((GRADIENT, f"{GRADIENT} * 2"), "twice what it should be, in the gradient of l2_penalty"),
    "sign": ((GRADIENT, f"{GRADIENT} * -1"), "the sign is wrong, in the gradient of l2_penalty"),
    "no l2": ((GRADIENT, GRADIENT.replace(" * l2", "")), "l2 is not a factor, in the gradient of l2_penalty"),
    "no grad_output": (
        (GRADIENT, GRADIENT.replace("grad_output * l2", "l2")),
        "what arrives from above is left out, in the gradient of l2_penalty",
    ),
    "no w": ((GRADIENT, f"{GRADIENT} / parameter"), "w is not a factor, in the gradient of l2_penalty"),
    "squared": ((GRADIENT, f"{GRADIENT} * parameter"), "w is squared, in the gradient of l2_penalty"),
    "absolute values": (
        (GRADIENT, f"{GRADIENT}.sign()"),
        "the gradient of absolute values in place of half their squares, in the gradient of l2_penalty",
    ),
    "rows swapped": (
        (GRADIENT, f"dparameter = ({GRADIENT[13:]})[:, [2, 1, 0, *range(3, parameter.shape[1])]]"),
        "classes 0 and 2 are swapped, in the gradient of l2_penalty",
    ),
    "a classifier lost": (
        (GRADIENT, f"{GRADIENT} * _like(parameter, torch.arange(len(l2)) != 1)"),
        "zero in classifier 1 alone, in the gradient of l2_penalty",
    ),
    "l2 of others": (
        (GRADIENT, GRADIENT.replace("l2", "l2.roll(1)")),
        "l2 of another classifier, in the gradient of l2_penalty",
    ),
    "value doubled": (
        (VALUE, "penalty = (2 * l2 * norms.square()"),
        "twice what it should be or the 1/2 is missing, in the value of l2_penalty",
    ),
    "norm": (
        (
            "norms.square().reshape(l2.shape[0], -1).sum(1) * 0.5)",
            "norms.square().reshape(l2.shape[0], -1).sum(1).sqrt())",
        ),
        "the norm in place of half its square, in the value of l2_penalty",
    ),
    "dl2 without 1/2": (
        (DL2, f"{DL2} * 2"),
        "twice what it should be or the 1/2 is missing, in the gradient for l2 of l2_penalty",
    ),
    "dl2 with l2": ((DL2, f"{DL2} * l2"), "l2 is still a factor, in the gradient for l2 of l2_penalty"),
    "dl2 zero": ((DL2, f"{DL2} * 0"), "zero, in the gradient for l2 of l2_penalty"),
}


@pytest.mark.parametrize(("change", "mistake"), PENALTY.values(), ids=PENALTY)
def test_a_mistake_in_the_penalty_is_named(change, mistake, monkeypatch):
    plant(monkeypatch, "l2_penalty", (change[0], f"{change[1]}"))
    verdicts = found("softmax")
    assert wrong(verdicts) == {"l2": mistake}
    (line,) = lines(verdicts)
    assert line.startswith(change[0].partition(" = ")[0] if " = " in change[0] else "penalty = ")


TRAINS = ", in the gradient that trains"
ADD = "add_l2_gradient(dweight, weight, l2, active)"
TRAINING: dict[str, tuple[str, Change, dict[str, str]]] = {
    "l2 forgotten": ("objective", (ADD, "pass"), {"l2": f"dropped for the weight{TRAINS}"}),
    "l2 doubled": (
        "objective",
        (ADD, ADD.replace(" l2", " 2 * l2")),
        {"l2": f"twice what it should be for the weight{TRAINS}"},
    ),
    "l2 divided by N": (
        "objective",
        (ADD, ADD.replace(" l2", f" l2 / {SAMPLES}")),
        {"l2": f"divided by N once too often (0.09090909091 times what it should be) for the weight{TRAINS}"},
    ),
    "l2 negated": ("objective", (ADD, ADD.replace(" l2", " -l2")), {"l2": f"the sign is wrong for the weight{TRAINS}"}),
    "l2 without active": (
        "objective",
        (ADD, ADD.replace("active", "torch.ones_like(active)")),
        {"l2": f"what arrives from above is left out for the weight{TRAINS}"},
    ),
    "l2 of the bias forgotten": (
        "objective",
        ("add_l2_gradient(dbias, bias, l2, active)", "pass"),
        {"l2": f"dropped for the bias{TRAINS}"},
    ),
    "the norm": (
        "l2_penalty",
        (ADDED, f"gradient.addcmul_(_like(parameter, grad_output * l2), {NORM})"),
        {
            "l2": "; ".join(
                f"the gradient of the norm in place of half its square for the {part}{TRAINS}"
                for part in ("weight", "bias")
            )
        },
    ),
    "the loss's sign": (
        "objective",
        ("*quick_grad(loss, (weight, bias), active)", "*quick_grad(loss, (weight, bias), -active)"),
        dict.fromkeys(("weight", "bias"), f"the sign is wrong{TRAINS}"),
    ),
    "without active": (
        "objective",
        ("*quick_grad(loss, (weight, bias), active)", "*quick_grad(loss, (weight, bias), torch.ones_like(active))"),
        dict.fromkeys(("weight", "bias"), f"what arrives from above is left out{TRAINS}"),
    ),
    "value without l2": (
        "objective",
        ("return loss + self.penalty(weight, bias).to(loss.dtype) if self.penalized else loss", "return loss"),
        {"l2": "dropped, in the objective's value"},
    ),
    "value doubled": (
        "objective",
        ("return loss + self.penalty(weight, bias)", "return 2 * loss + 2 * self.penalty(weight, bias)"),
        dict.fromkeys(("loss", "l2"), "twice what it should be, in the objective's value"),
    ),
    "value without the bias's": (
        "objective",
        ("return penalty + l2_penalty(bias, l2) if self.penalize_bias else penalty", "return penalty"),
        {"l2": "the bias is left out, in the objective's value"},
    ),
}


@pytest.mark.parametrize("kind", MINUS)
@pytest.mark.parametrize(("file", "change", "mistakes"), TRAINING.values(), ids=TRAINING)
def test_a_mistake_in_the_calls_that_train_is_named(file, change, mistakes, kind, monkeypatch):
    """The Functions are right, and are not blamed."""
    if "norm" in change[1]:  # of one number, it is the absolute value
        monkeypatch.setitem(KINDS, "logistic", KINDS["multilabel"])
    plant(monkeypatch, file, change)
    assert wrong(found(kind)) == mistakes


def test_the_line_that_adds_the_penalty_is_blamed_only_where_it_is_wrong_itself(monkeypatch):
    plant(monkeypatch, "l2_penalty", (ADDED, ADDED.replace("* l2)", "* 2 * l2)")))
    assert lines(found("softmax")) == {ADDED}
    monkeypatch.undo()
    plant(monkeypatch, "objective", (ADD, "pass"))
    assert lines(found("softmax")) == {ADD}


@pytest.mark.parametrize("kind", MINUS)
def test_a_penalty_on_a_bias_that_has_none_is_named(kind, monkeypatch):
    plant(
        monkeypatch,
        "objective",
        ("        if self.penalize_bias:\n            add", "        if True:\n            add"),
    )
    mistake = f"the bias is penalized, though penalize_bias is false{TRAINS}"
    assert wrong(found(kind, penalize_bias=False)) == {"l2": mistake}


@pytest.mark.parametrize("kind", MINUS)
@pytest.mark.parametrize("l2", [(0.02,), (1e-6,), (0.0, 1e-6, 1e3)], ids=str)
def test_a_penalty_that_is_forgotten_is_named_whatever_its_size(kind, l2, monkeypatch):
    plant(monkeypatch, "objective", (ADD, "pass"))
    assert wrong(found(kind, l2)) == {"l2": f"dropped for the weight{TRAINS}"}


def test_the_entry_of_a_path_that_is_wrong_alone_is_named(monkeypatch):
    plant(monkeypatch, "objective", (ADD, ADD.replace(" l2", " torch.where(l2 > 1, 3 * l2, l2)")))
    assert wrong(found("softmax")) == {"l2": f"3 times what it should be at l2=2 alone for the weight{TRAINS}"}


# --- what solvers that look at all samples use -----------------------------------------------------------------------

CURVATURE = {"softmax": "return p * (u - (p * u)", "logistic": "return torch.sigmoid(z) * torch.sigmoid(-z) * u"}


@pytest.mark.parametrize("kind", MINUS)
def test_a_mistake_in_the_hessian_is_named_where_it_is_asked_for(kind, monkeypatch):
    plant(monkeypatch, "objective", (CURVATURE[kind], CURVATURE[kind].replace("return", "return 2 *")))
    assert wrong(found(kind)) == {}
    told = "twice what it should be, in the Hessian-vector product"
    assert wrong(found(kind, hessian=True)) == {"Hessian": f"{told}; {told}"}


def test_p_in_place_of_p_minus_y_in_the_data_term_is_named(monkeypatch):
    plant(
        monkeypatch,
        "objective",
        ("log_p.exp_().scatter_add_(1, index, log_p.new_full(index.shape, -1.0))", "log_p.exp_()"),
    )
    assert wrong(found("softmax", hessian=True)) == dict.fromkeys(
        ("weight", "bias"), "p in place of p - y, in the data term"
    )


# --- losses of one's own, and what is told ---------------------------------------------------------------------------


def test_a_loss_of_ones_own_is_judged_by_its_formula(monkeypatch):
    own = importlib.import_module("tests.test_contributing")  # loads Lightning
    monkeypatch.setitem(KINDS, "own", (own.LeastSquaresClassifier.criterion, 3))
    assert wrong(found("own")) == {}
    monkeypatch.setattr(own, "FACTOR", 0.5)
    verdicts = found("own")
    assert wrong(verdicts) == dict.fromkeys(("weight", "bias", "input"), "half of what it should be")
    (line,) = lines(verdicts)
    assert line.startswith("dz = ")


def test_a_loss_that_is_no_function_of_ours_is_judged_too(monkeypatch):
    """Such as one that torch differentiates, wrong by its formula."""

    def doubled(*arguments):
        loss, logits = SOFTMAX.function(*arguments)
        return 2 * loss, logits

    monkeypatch.setitem(KINDS, "own", (SOFTMAX._replace(function=doubled), 3))
    parts = dict.fromkeys(("loss", "weight", "bias", "input"), "twice what it should be")
    assert wrong(found("own")) == parts | {"loss": "twice what it should be"}


def test_each_section_is_on_the_page():
    page = (ROOT / "docs" / "derivation.md").read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w -]", "", line[3:]).lower().replace(" ", "-") for line in page.splitlines() if line[:3] == "## "
    }
    assert set(SECTIONS.values()) <= headings


def test_what_is_told():
    verdicts = [
        Verdict("loss", None),
        Verdict("weight", "twice", "a.py:1", "there"),
        Verdict("bias", "twice", "a.py:1", "there"),
        Verdict("l2", None),
        Verdict("l2", "dropped"),
    ]
    assert told(verdicts) == [
        "weight, bias: twice",
        "  see a.py:1 and docs/derivation.md#there",
        "l2: dropped",
        "loss: right",
    ]
