"""What the losses accept: dtypes, autocast, layouts, extreme logits, small batches; and what they refuse, and how."""

import pytest
import torch
import torch.nn.functional as F

from tests.functions.contract import LOSSES, Loss, gradient, plain_penalty, relative_error


@pytest.fixture(params=LOSSES)
def loss(request) -> Loss:
    return LOSSES[request.param]


def named(loss: Loss) -> str:
    return next(name for name, other in LOSSES.items() if other is loss)


def case_with_bias(loss: Loss, **sizes):
    return next(case for case in (loss.case(seed, **sizes) for seed in range(50)) if "bias" in case.parameters)


def test_without_features_the_bias_alone_is_trained(loss):
    case = case_with_bias(loss, N=6, D=3, L=3)
    input, weight, bias = (case.parameters[name] for name in ("input", "weight", "bias"))
    found = [tensor.requires_grad_() for tensor in (input[:, :0], weight[..., :0], bias.clone())]
    expected = [tensor.requires_grad_() for tensor in (0 * input, 0 * weight, bias.clone())]
    grads = []
    for x, w, b in (found, expected):
        value, _ = loss.function(x, w, case.target, b)
        grads.append(torch.autograd.grad(value, (x, w, b), case.grad_loss))
    assert [grad.shape for grad in grads[0]] == [tensor.shape for tensor in found]
    assert torch.equal(grads[0][2], grads[1][2])


# --- the path axis ---------------------------------------------------------------------------------------------------


def test_stacked_classifiers_are_separate_calls(loss):
    case = case_with_bias(loss, N=6, D=5, L=4)
    p = {name: tensor.requires_grad_() for name, tensor in case.parameters.items()}
    stacked, logits = loss.function(target=case.target, **p)
    single = [loss.function(p["input"], p["weight"][i : i + 1], case.target, p["bias"][i : i + 1]) for i in range(4)]
    losses = torch.cat([value for value, _ in single])
    assert relative_error(stacked.detach(), losses.detach()) <= 1e-15
    assert relative_error(logits.detach(), torch.cat([value for _, value in single]).detach()) <= 1e-15
    grads = [torch.autograd.grad(value, list(p.values()), case.grad_loss) for value in (stacked, losses)]
    for found, expected in zip(*grads, strict=True):
        assert relative_error(found, expected) <= 1e-14


def test_gradients_of_classifiers_never_mix(loss):
    case = case_with_bias(loss, N=6, D=5, L=3)
    weight = case.parameters["weight"].requires_grad_()
    values, _ = loss.function(case.parameters["input"], weight, case.target)
    (grad,) = torch.autograd.grad(values[1], weight)
    assert grad[1].any()
    assert not grad[0].any()
    assert not grad[2].any()


# --- sample weights --------------------------------------------------------------------------------------------------


def value_and_gradient(loss: Loss, p: dict, target: torch.Tensor, sample_weight: torch.Tensor | None = None):
    leaves = [p[name].detach().requires_grad_() for name in ("weight", "bias")]
    value, _ = loss.function(p["input"], leaves[0], target, leaves[1], sample_weight)
    return value.detach(), *torch.autograd.grad(value.sum(), leaves)


def assert_close(found, expected, tolerance=1e-14):
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one, other) <= tolerance


def test_counts_are_repeated_rows(loss):
    case = case_with_bias(loss, N=6, D=5, L=3)
    counts = torch.tensor([2, 0, 1, 5, 1, 3])
    found = value_and_gradient(loss, case.parameters, case.target, counts.double())
    rows = torch.arange(6).repeat_interleave(counts)
    repeated = case.parameters | {"input": case.parameters["input"][rows]}
    assert_close(found, value_and_gradient(loss, repeated, case.target[rows]))


def test_equal_weights_are_none_and_scale_is_of_no_account(loss):
    case = case_with_bias(loss, N=6, D=5, L=3)
    expected = value_and_gradient(loss, case.parameters, case.target)
    for scale in (1.0, 1e-200, 1e200):
        weights = torch.full((6,), scale, dtype=torch.float64)
        assert_close(value_and_gradient(loss, case.parameters, case.target, weights), expected)


def test_float16_weights_whose_sum_overflows(loss):
    case = case_with_bias(loss, N=6, D=5, L=3).to(torch.float16)
    value, _ = loss.function(**case.parameters, target=case.target, sample_weight=torch.full((6,), 6e4).half())
    assert torch.equal(value, loss.function(**case.parameters, target=case.target)[0])


def test_weights_that_add_up_to_zero_give_no_number(loss):
    case = case_with_bias(loss, N=6, D=5, L=3)
    zeros = torch.zeros(6, dtype=torch.float64)
    assert loss.function(**case.parameters, target=case.target, sample_weight=zeros)[0].isnan().all()


# --- shapes, layouts, dtypes -----------------------------------------------------------------------------------------


def test_shapes_and_dtypes_of_the_outputs(loss):
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        case = case_with_bias(loss, N=7, D=5, L=3).to(dtype)
        value, logits = loss.function(target=case.target, **case.parameters)
        assert value.shape == (3,)
        assert logits.shape == (3, 7, case.parameters["weight"].shape[1])
        assert value.dtype == logits.dtype == dtype


def test_only_wanted_gradients_are_computed(loss):
    case = case_with_bias(loss, N=6, D=5, L=3)
    all_three = gradient(loss.function, plain_penalty, case)
    for name in case.parameters:
        parameters = {n: t.detach().clone().requires_grad_(n == name) for n, t in case.parameters.items()}
        value, logits = loss.function(target=case.target, **parameters)
        total = (case.grad_loss * value).sum() + (case.grad_logits * logits).sum()
        if name != "input":
            penalty = plain_penalty(parameters["weight"], case.l2)
            penalty = penalty + 0.5 * plain_penalty(parameters["bias"].unsqueeze(-1), case.l2)
            total = total + (case.grad_penalty * penalty).sum()
        total.backward()
        assert torch.equal(parameters[name].grad, all_three[name])
        assert all(tensor.grad is None for other, tensor in parameters.items() if other != name)


def test_non_contiguous_arguments(loss):
    case = case_with_bias(loss, N=6, D=5, L=3)
    expected = gradient(loss.function, plain_penalty, case)

    def spread(tensor):
        """The same numbers, every second element of a larger tensor whose axes are reversed."""
        reversed_axes = tensor.permute(*reversed(range(tensor.dim())))
        wide = torch.stack([reversed_axes, torch.full_like(reversed_axes, 9)], -1).flatten(-2)
        return wide[..., ::2].permute(*reversed(range(tensor.dim())))

    parameters = {name: spread(tensor).detach().requires_grad_() for name, tensor in case.parameters.items()}
    assert not parameters["weight"].is_contiguous()
    assert not parameters["input"].is_contiguous()
    value, logits = loss.function(target=spread(case.target), **parameters)
    grads = torch.autograd.grad(
        (value, logits), list(parameters.values()), (spread(case.grad_loss), spread(case.grad_logits))
    )
    plain = loss.plain(target=case.target, **(p := {n: t.clone().requires_grad_() for n, t in case.parameters.items()}))
    wanted = torch.autograd.grad(plain, list(p.values()), (case.grad_loss, case.grad_logits))
    for found, value in zip(grads, wanted, strict=True):
        assert relative_error(found, value) <= 1e-13
    assert set(expected) == set(parameters)


def test_the_gradient_of_a_summed_loss_arrives_expanded(loss):
    case = case_with_bias(loss, N=6, D=5, L=3)
    weight = case.parameters["weight"].requires_grad_()
    found = torch.autograd.grad(loss.function(case.parameters["input"], weight, case.target)[0].sum(), weight)
    expected = torch.autograd.grad(loss.plain(case.parameters["input"], weight, case.target)[0].sum(), weight)
    assert relative_error(*found, *expected) <= 1e-13


def test_batch_of_one_and_one_feature(loss):
    case = case_with_bias(loss, N=1, D=1, L=1)
    found = gradient(loss.function, plain_penalty, case)
    for name, value in gradient(loss.plain, plain_penalty, case).items():
        assert relative_error(found[name], value) <= 1e-13


@pytest.mark.parametrize("input_dtype", [torch.float32, torch.bfloat16])
def test_autocast(loss, input_dtype):
    """The product in bfloat16, loss and gradients in float32; a later linear still gets its gradient."""
    case = case_with_bias(loss, N=32, D=20, L=2).to(torch.float32)
    p = {name: tensor.requires_grad_() for name, tensor in case.parameters.items()}
    p["input"] = p["input"].detach().to(input_dtype)
    with torch.autocast("cpu", torch.bfloat16):
        value, logits = loss.function(target=case.target, **p)
        _, without_bias = loss.function(p["input"], p["weight"], case.target)
        later = F.linear(p["input"], p["weight"][0])
    assert value.dtype == torch.float32
    # The product is bfloat16, and its sum with a float32 bias is float32.
    assert logits.dtype == torch.float32
    assert without_bias.dtype == torch.bfloat16
    assert later.requires_grad
    found = torch.autograd.grad(value.sum(), (p["weight"], p["bias"]))
    expected = torch.autograd.grad(
        loss.plain(p["input"].double(), p["weight"].double(), case.target, p["bias"].double())[0].sum(),
        (p["weight"], p["bias"]),
    )
    for mine, wanted in zip(found, expected, strict=True):
        assert mine.dtype == torch.float32
        assert relative_error(mine, wanted) <= 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_autocast_takes_sample_weights_of_any_floating_dtype(loss, dtype):
    case = case_with_bias(loss, N=32, D=20, L=2, weighted=True).to(torch.float32)
    weight, sample_weight = case.parameters["weight"].requires_grad_(), case.sample_weight.to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        value, _ = loss.function(case.parameters["input"], weight, case.target, None, sample_weight)
    wide = (case.parameters["input"].double(), weight.double(), case.target, None, sample_weight.double())
    assert value.dtype == torch.float32
    found, expected = (torch.autograd.grad(v.sum(), weight)[0] for v in (value, loss.plain(*wide)[0]))
    assert relative_error(found, expected) <= 0.02


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [1e4, 1e20])
def test_extreme_logits_stay_finite(loss, size, dtype):
    """Each sample's logits are +size for one class and -size for another, right and wrong targets alike."""
    classes = {"softmax": 3, "binary": 1, "multilabel": 2}[named(loss)]
    input = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=dtype, requires_grad=True)
    weight = torch.zeros(1, classes, 1, dtype=dtype)
    weight[0, 0], weight[0, -1] = -size, size
    weight.requires_grad_()
    target = torch.tensor([0, 1, 0, 1])
    target = torch.stack((target, target), 1) if named(loss) == "multilabel" else target
    value, logits = loss.function(input, weight, target)
    grads = torch.autograd.grad(value.sum() + 0 * logits.sum(), (input, weight))
    assert all(tensor.isfinite().all() for tensor in (value, logits, *grads))
    # Of the two labels, which are always the same, one logit is right where the other is wrong.
    expected = {"softmax": (2 + 1 + 0 + 1) / 4, "binary": (1 + 0 + 0 + 1) / 4, "multilabel": 1}[named(loss)]
    assert value.item() == pytest.approx(expected * size, rel=1e-6)


def test_small_losses_keep_their_digits():
    """A sample far on its own side: the loss and its gradient are exp(-z), not the rounding of 1 - p."""
    loss = LOSSES["binary"]
    weight = torch.tensor([[[40.0]]], dtype=torch.float64, requires_grad=True)
    for x, y in ((1.0, 1), (-1.0, 0)):
        value, _ = loss.function(torch.tensor([[x]], dtype=torch.float64), weight, torch.tensor([y]))
        (grad,) = torch.autograd.grad(value, weight)
        small = torch.tensor(-40.0, dtype=torch.float64).exp().item()
        assert value.item() == pytest.approx(small, rel=1e-14, abs=0)
        assert grad.item() == pytest.approx(-small, rel=1e-14, abs=0)


def test_uniform_classifier_costs_the_logarithm_of_the_number_of_classes():
    input, target = torch.randn(8, 3), torch.arange(8) % 5
    value, _ = LOSSES["softmax"].function(input, torch.zeros(2, 5, 3), target)
    assert value.tolist() == pytest.approx([1.6094379] * 2, rel=1e-6)
    value, _ = LOSSES["binary"].function(input, torch.zeros(2, 1, 3), target % 2)
    assert value.tolist() == pytest.approx([0.6931472] * 2, rel=1e-6)


def test_not_a_number_is_not_hidden(loss):
    case = case_with_bias(loss, N=4, D=3, L=2)
    case.parameters["input"][1, 2] = float("nan")
    value, _ = loss.function(target=case.target, **case.parameters)
    assert value.isnan().all()


# --- what is refused -------------------------------------------------------------------------------------------------


def arguments(loss: Loss, **changes):
    classes = 1 if loss is LOSSES["binary"] else 4
    plain = {
        "input": torch.zeros(5, 3),
        "weight": torch.zeros(2, classes, 3),
        "target": torch.zeros((5, 4) if loss is LOSSES["multilabel"] else 5, dtype=torch.int64),
        "bias": torch.zeros(2, classes),
    }
    target = changes.get("target", plain["target"])
    if loss is LOSSES["multilabel"] and target.shape == (5,):
        changes["target"] = target[:, None].expand(5, 4)
    return plain | changes


@pytest.mark.parametrize("value", [-100, -1, 4, 2**40])
def test_target_out_of_range_is_refused(loss, value):
    target = arguments(loss)["target"]
    target[2] = value
    last = 3 if loss is LOSSES["softmax"] else 1
    with pytest.raises(IndexError, match=f"^target holds {value}; expected class indices from 0 to {last}$"):
        loss.function(**arguments(loss, target=target))


@pytest.mark.parametrize("value", [2, 7])
def test_binary_target_is_zero_or_one(value):
    loss = LOSSES["binary"]
    with pytest.raises(IndexError, match=f"^target holds {value}; expected class indices from 0 to 1$"):
        loss.function(**arguments(loss, target=torch.tensor([0, 1, value, 0, 1])))


REFUSED = {
    "input 1-d": ({"input": torch.zeros(3)}, ValueError, r"input has shape \(3,\); expected \(N, D\)"),
    "input image": ({"input": torch.zeros(5, 1, 3)}, ValueError, r"input has shape \(5, 1, 3\); expected \(N, D\)"),
    "weight of nn.Linear": (
        {"weight": torch.zeros(10, 3)},
        ValueError,
        r"weight has shape \(10, 3\); expected \(L, K, D\) with D = 3 as in input",
    ),
    "weight of other D": ({"weight": torch.zeros(2, 1, 4)}, ValueError, r"weight has shape \(2, 1, 4\); expected"),
    "no classifier": ({"weight": torch.zeros(0, 1, 3), "bias": None}, ValueError, "at least one classifier"),
    "no class": ({"weight": torch.zeros(2, 0, 3), "bias": None}, ValueError, "at least one classifier and one class"),
    "target of other N": (
        {"target": torch.zeros(4, dtype=torch.int64)},
        ValueError,
        r"target has shape \(4,\); expected \(N,( K\) with K = 4 as in weight and|\) with) N = 5 as in input",
    ),
    "target column": ({"target": torch.zeros(5, 1, dtype=torch.int64)}, ValueError, r"target has shape \(5, 1\)"),
    "bias of one classifier": ({"bias": torch.zeros(4)}, ValueError, r"bias has shape \(4,\); expected \(2, "),
    "bias that would broadcast": ({"bias": torch.zeros(1, 1)}, ValueError, r"bias has shape \(1, 1\); expected \(2, "),
    "empty batch": (
        {"input": torch.zeros(0, 3), "target": torch.zeros(0, dtype=torch.int64)},
        ValueError,
        "the mean loss of an empty batch does not exist",
    ),
    "target of floats": ({"target": torch.zeros(5)}, TypeError, "target has dtype torch.float32; expected torch.int64"),
    "target of int32": ({"target": torch.zeros(5, dtype=torch.int32)}, TypeError, "target has dtype torch.int32"),
    "input of bytes": ({"input": torch.zeros(5, 3, dtype=torch.uint8)}, TypeError, "input has dtype torch.uint8"),
    "mixed precision": ({"input": torch.zeros(5, 3).double()}, TypeError, "expected torch.float32 as weight"),
    "sample_weight of other N": (
        {"sample_weight": torch.ones(4)},
        ValueError,
        r"sample_weight has shape \(4,\); expected \(N,\) with N = 5 as in input",
    ),
    "sample_weight column": ({"sample_weight": torch.ones(5, 1)}, ValueError, r"sample_weight has shape \(5, 1\)"),
    "sample_weight of integers": (
        {"sample_weight": torch.ones(5, dtype=torch.int64)},
        TypeError,
        "sample_weight has dtype torch.int64; expected torch.float32 as weight",
    ),
    "sample_weight of float64": ({"sample_weight": torch.ones(5).double()}, TypeError, "has dtype torch.float64"),
    "sample_weight list": ({"sample_weight": [1.0] * 5}, TypeError, "sample_weight is a list; expected a torch.Tensor"),
    "sample_weight that requires a gradient": (
        {"sample_weight": torch.ones(5, requires_grad=True)},
        ValueError,
        "no gradient is derived for it",
    ),
    "list": ({"input": [[0.0]]}, TypeError, "input is a list; expected a torch.Tensor"),
    "weight None": ({"weight": None}, TypeError, "weight is a NoneType; expected a torch.Tensor"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(loss, name):
    changes, error, message = REFUSED[name]
    with pytest.raises(error, match=message) as caught:
        loss.function(**arguments(loss, **changes))
    assert "\n" not in str(caught.value)


def test_integer_and_complex_weights_are_refused(loss):
    for dtype in (torch.int64, torch.complex64):
        changed = {name: tensor.to(dtype) for name, tensor in arguments(loss).items() if name != "target"}
        with pytest.raises(TypeError, match="expected a floating-point dtype"):
            loss.function(target=arguments(loss)["target"], **changed)


def test_bias_of_another_dtype_is_refused(loss):
    bias = arguments(loss)["bias"].double()
    with pytest.raises(TypeError, match=r"bias has dtype torch.float64; expected torch.float32 as weight"):
        loss.function(**arguments(loss, bias=bias))


def test_several_sigmoids_want_a_target_each():
    loss = LOSSES["binary"]
    with pytest.raises(ValueError, match=r"target has shape \(5,\); expected \(N, K\) with K = 2 as in weight"):
        loss.function(**arguments(loss, weight=torch.zeros(2, 2, 3), bias=torch.zeros(2, 2)))


def test_autocast_still_refuses_integers(loss):
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match=r"input has dtype torch\.int64"):
        loss.function(**arguments(loss, input=torch.zeros(5, 3, dtype=torch.int64)))
