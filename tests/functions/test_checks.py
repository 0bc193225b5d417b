"""What the arguments' checks look at, and what not; that both losses make them is tested in test_arguments.py."""

import pytest
import torch

from handgrad.functions.checks import check_constant, check_linear_arguments, check_target_range


def arguments(N: int = 5, D: int = 3, L: int = 2, K: int = 4, dtype=torch.float32, device: str = "cpu") -> dict:
    like = {"dtype": dtype, "device": device}
    return {
        "input": torch.zeros(N, D, **like),
        "weight": torch.zeros(L, K, D, **like),
        "target": torch.zeros(N, dtype=torch.int64, device=device),
        "bias": torch.zeros(L, K, **like),
        "sample_weight": torch.zeros(N, **like),
    }


@pytest.mark.parametrize("sizes", [{}, {"N": 1, "L": 1, "K": 1, "D": 1}, {"D": 0}, {"N": 1, "K": 1000}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_what_fits_is_accepted(sizes, dtype):
    given = arguments(**sizes, dtype=dtype)
    check_linear_arguments(**given)
    check_linear_arguments(**given | {"bias": None, "sample_weight": None})


def test_several_labels_have_a_target_each():
    given = arguments(N=5, K=4)
    check_linear_arguments(**given | {"target": torch.zeros(5, 4, dtype=torch.int64)}, labels=True)
    check_linear_arguments(**arguments(K=1), labels=True)
    for wrong in (given["target"], torch.zeros(5, 3, dtype=torch.int64), torch.zeros(4, 5, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"expected \(N, K\) with K = 4 as in weight and N = 5 as in input"):
            check_linear_arguments(**given | {"target": wrong}, labels=True)


def test_no_value_is_looked_at():
    """Tensors of the meta device have none; on a GPU a look would wait for all that was begun there."""
    check_linear_arguments(**arguments(device="meta"))
    with pytest.raises(ValueError, match="sample_weight has shape"):
        check_linear_arguments(**arguments(device="meta") | {"sample_weight": torch.zeros(4, device="meta")})


def test_bad_values_are_not_its_business():
    given = arguments()
    given["target"] -= 100
    given["input"] += float("nan")
    given["sample_weight"] -= 1
    check_linear_arguments(**given)


def test_what_is_wrong_first_is_said_first():
    """Shapes are told by the input's, so that is checked before them, and shapes before dtypes."""
    given = arguments()
    wrong = {"input": torch.zeros(5), "weight": torch.zeros(2, 4, 7), "target": torch.zeros(9, dtype=torch.int32)}
    for name, told in (("input", r"input has shape \(5,\)"), ("weight", "weight has shape"), ("target", "target has")):
        with pytest.raises(ValueError, match=told):
            check_linear_arguments(**given | wrong)
        del wrong[name]
    with pytest.raises(TypeError, match="weight is a str"):
        check_linear_arguments(**given | {"input": torch.zeros(5), "weight": "w"})
    with pytest.raises(ValueError, match="bias has shape"):
        check_linear_arguments(**given | {"target": given["target"].int(), "bias": torch.zeros(2)})


def test_a_bias_that_would_broadcast_is_refused():
    for shape in ((4,), (1, 4), (2, 1), (4, 2), (2, 4, 1)):
        with pytest.raises(ValueError, match=r"expected \(2, 4\) as weight's \(L, K\)"):
            check_linear_arguments(**arguments() | {"bias": torch.zeros(shape)})


@pytest.mark.parametrize("name", ["input", "bias", "sample_weight"])
def test_dtypes_may_differ_under_autocast_alone(name):
    given = arguments()
    given[name] = given[name].double()
    with pytest.raises(TypeError, match=f"{name} has dtype torch.float64; expected torch.float32 as weight"):
        check_linear_arguments(**given)
    with torch.autocast("cpu", torch.bfloat16):
        check_linear_arguments(**given)
        with pytest.raises(TypeError, match=f"{name} has dtype torch.int64"):
            check_linear_arguments(**given | {name: given[name].long()})


def test_sample_weights_must_be_constant():
    check_constant(True)
    with pytest.raises(ValueError, match="no gradient is derived for it; detach it"):
        check_constant(False)
    given = arguments()
    given["weight"].requires_grad_()
    check_linear_arguments(**given)
    given["sample_weight"].requires_grad_()
    with pytest.raises(ValueError, match="detach it"):
        check_linear_arguments(**given)
    check_linear_arguments(**given | {"sample_weight": given["sample_weight"].detach()})


@pytest.mark.parametrize("classes", [1, 2, 10])
def test_class_indices_end_below_the_number_of_classes(classes):
    check_target_range(torch.tensor([classes - 1, 0]), classes)
    for wrong in (-1, classes, -100, 2**62):
        with pytest.raises(IndexError) as caught:
            check_target_range(torch.tensor([0, wrong, 0]), classes)
        assert str(caught.value) == f"target holds {wrong}; expected class indices from 0 to {classes - 1}"


def test_of_two_wrong_indices_the_smallest_is_named():
    with pytest.raises(IndexError, match="target holds -2"):
        check_target_range(torch.tensor([12, -1, -2]), 10)
