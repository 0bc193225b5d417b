"""The objective of every loss: value, gradient, Hessian-vector product against the plain formula; chunks, processes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from handgrad.functions.objective import LOGISTIC, MULTILABEL, SOFTMAX, Drawn, Objective
from tests.functions.contract import LOSSES, STEP, Case, Loss, plain_penalty, relative_error
from tests.pretended_device import DEVICE, pretended

CASES = range(240)
ROWS = (None, 1, 2, 3, 5)
OBJECTIVES = {"softmax": SOFTMAX, "binary": LOGISTIC, "multilabel": MULTILABEL}
# torch's own forward-mode tables are built with the deprecated torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


class Problem:
    """A random case as the objective sees it; half of the cases have sample weights, half a penalized bias."""

    def __init__(self, name: str, seed: int, **sizes: int):
        self.plain: Loss = LOSSES[name]
        case: Case = self.plain.case(seed, weighted=seed % 2 == 1, **sizes)
        self.case, self.weight, self.input = case, case.parameters["weight"], case.parameters["input"]
        self.bias = case.parameters.get("bias", torch.zeros(self.weight.shape[:2], dtype=torch.float64))
        l2 = case.l2 if seed % 5 else torch.zeros_like(case.l2)
        self.objective = Objective(OBJECTIVES[name], l2, penalize_bias=seed % 4 >= 2, rows=ROWS[seed % len(ROWS)])
        self.generator = torch.Generator().manual_seed(seed)

    @property
    def parameters(self) -> tuple[Tensor, Tensor]:
        return self.weight, self.bias

    @property
    def samples(self) -> tuple[Tensor, ...]:
        return self.input, self.case.target, self.case.sample_weight

    def loss(self, weight: Tensor, bias: Tensor) -> Tensor:
        """C by the plain formula; weight and bias may carry batch axes in front."""
        return self.plain.plain(self.input, weight, self.case.target, bias, self.case.sample_weight)[0]

    def value(self, weight: Tensor, bias: Tensor) -> Tensor:
        """J by the plain formula."""
        penalty = plain_penalty(weight, self.objective.l2)
        if self.objective.penalize_bias:
            penalty = penalty + plain_penalty(bias.unsqueeze(-1), self.objective.l2)
        return self.loss(weight, bias) + penalty

    def like(self, tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=self.generator, dtype=tensor.dtype)


@pytest.fixture(params=LOSSES)
def name(request) -> str:
    return request.param


def problems(name: str, seeds=CASES, **sizes: int) -> list[Problem]:
    return [Problem(name, seed, **sizes) for seed in seeds]


def flat(tensors) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


# --- the checks, which take the objective that they judge ------------------------------------------------------------


def check_value(problem: Problem, objective: Objective) -> None:
    found = objective.value(*problem.parameters, *problem.samples)
    assert relative_error(found, problem.value(*problem.parameters)) <= 1e-12


def check_difference(problem: Problem, objective: Objective) -> None:
    """Five-point central difference in every coordinate of weight and bias, all of them in one batch."""
    _, *found = objective.gradient(*problem.parameters, *problem.samples)
    steps = STEP / float(problem.input.abs().max()), STEP
    for i, (grad, step) in enumerate(zip(found, steps, strict=True)):
        point = list(problem.parameters)
        moves = torch.tensor([-2.0, -1.0, 1.0, 2.0], dtype=torch.float64).view(-1, 1, 1) * step
        one_at_a_time = moves * torch.eye(grad.numel(), dtype=torch.float64)
        point[i] = point[i] + one_at_a_time.view(4, -1, *grad.shape)
        value = problem.value(*point).sum(-1)
        expected = ((value[0] - value[3]) + 8 * (value[2] - value[1])).view(grad.shape) / (12 * step)
        assert relative_error(grad, expected) <= 1e-9


def check_autograd(problem: Problem, objective: Objective) -> None:
    """Weight and bias count as one vector, as in the losses' own contract."""
    loss, *found = objective.gradient(*problem.parameters, *problem.samples)
    leaves = [tensor.clone().requires_grad_() for tensor in problem.parameters]
    expected = torch.autograd.grad(problem.value(*leaves).sum(), leaves)
    assert relative_error(loss, problem.loss(*problem.parameters)) <= 1e-13
    assert relative_error(flat(found), flat(expected)) <= 1e-13


def check_hessian_vector_product(problem: Problem, objective: Objective) -> None:
    direction = [problem.like(tensor) for tensor in problem.parameters]
    found = objective.hessian_vector_product(*problem.parameters, *direction, problem.input, problem.case.sample_weight)
    leaves = [tensor.clone().requires_grad_() for tensor in problem.parameters]
    grads = torch.autograd.grad(problem.value(*leaves).sum(), leaves, create_graph=True)
    expected = torch.autograd.grad(grads, leaves, direction)
    assert relative_error(flat(found), flat(expected)) <= 1e-12


CHECKS = [check_value, check_difference, check_autograd, check_hessian_vector_product]


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_objective_is_the_plain_formula(name, check):
    for problem in problems(name):
        check(problem, problem.objective)


def test_cases_are_of_all_kinds():
    kinds = {(p.case.sample_weight is None, p.objective.penalize_bias, p.objective.rows) for p in problems("softmax")}
    assert len(kinds) == 2 * 2 * len(ROWS)


@pytest.mark.slow
def test_hessian_vector_product_is_forward_mode_of_the_gradient(name):
    """By torch.func of the very Functions that train, whose derivative is proven in test_transforms.py."""
    for problem in problems(name, range(20)):
        function, (input, target, sample_weight) = problem.plain.function, problem.samples
        direction = tuple(problem.like(tensor) for tensor in problem.parameters)

        def total(weight, bias, function=function, samples=(input, target, sample_weight), problem=problem):
            loss = function(samples[0], weight, samples[1], bias, samples[2])[0]
            return (loss + problem.objective.penalty(weight, bias)).sum()

        _, expected = torch.func.jvp(torch.func.grad(total, (0, 1)), problem.parameters, direction)
        found = problem.objective.hessian_vector_product(*problem.parameters, *direction, input, sample_weight)
        assert relative_error(flat(found), flat(expected)) <= 1e-12


def test_hessian_is_symmetric_and_not_negative(name):
    for problem in problems(name):
        one, other = ([problem.like(tensor) for tensor in problem.parameters] for _ in range(2))
        samples = problem.input, problem.case.sample_weight

        def product(direction, problem=problem, samples=samples):
            return flat(problem.objective.hessian_vector_product(*problem.parameters, *direction, *samples))

        size = float(product(one).norm() * flat(other).norm() + flat(one).norm() * product(other).norm())
        assert abs(float(flat(other) @ product(one) - flat(one) @ product(other))) <= 1e-13 * size
        assert float(flat(one) @ product(one)) >= -1e-13 * size


# --- wrong versions --------------------------------------------------------------------------------------------------


WITHOUT_SECOND_TERM = {
    "softmax": lambda z, u: torch.softmax(z, 1) * u,
    **dict.fromkeys(("binary", "multilabel"), lambda z, u: torch.sigmoid(z) * u),
}
OF_THE_OTHER_LOSS = {
    "softmax": LOGISTIC.curvature,
    **dict.fromkeys(("binary", "multilabel"), SOFTMAX.curvature),
}


def with_curvature(curvatures: dict[str, Callable]) -> Callable[[str, Objective], Objective]:
    return lambda name, o: replace(o, loss=o.loss._replace(curvature=curvatures[name]))


WRONG = {
    "curvature without the second term": (with_curvature(WITHOUT_SECOND_TERM), {check_hessian_vector_product}),
    "curvature of the other loss": (with_curvature(OF_THE_OTHER_LOSS), {check_hessian_vector_product}),
    "l2 dropped": (lambda name, o: replace(o, l2=torch.zeros_like(o.l2)), set(CHECKS)),
    "l2 x 1.0005": (lambda name, o: replace(o, l2=o.l2 * 1.0005), set(CHECKS)),
    "bias penalized though it should not be, or not": (
        lambda name, o: replace(o, penalize_bias=not o.penalize_bias),
        set(CHECKS),
    ),
}


def test_curvature_is_the_variance_of_how_the_logits_move(name):
    """The derivation's formula, of weight and bias together; only the common shift of softmax's biases is flat."""
    for problem in problems(name, range(20)):
        objective, (weight, bias), (x, _, s) = problem.objective, problem.parameters, problem.samples
        v, c = problem.like(weight), problem.like(bias)
        z, u = weight @ x.t() + bias.unsqueeze(2), v @ x.t() + c.unsqueeze(2)
        p = z.softmax(1) if name == "softmax" else z.sigmoid()
        spread = (p * u).sum(1).square() if name == "softmax" else (p * u).square().sum(1)
        shares = torch.ones(len(x), dtype=torch.float64) if s is None else s
        expected = ((p * u.square()).sum(1) - spread) @ shares / shares.sum() + objective.l2 * v.square().sum((1, 2))
        if objective.penalize_bias:
            expected += objective.l2 * c.square().sum(1)
        hv, hc = objective.hessian_vector_product(weight, bias, v, c, x, s)
        assert (v * hv).sum((1, 2)) + (c * hc).sum(1) == pytest.approx(expected, rel=1e-9)
        free = replace(objective, penalize_bias=False)
        _, shift = free.hessian_vector_product(weight, bias, torch.zeros_like(v), torch.ones_like(c), x, s)
        assert (shift.abs().max() < 1e-15) == (name == "softmax")


@pytest.mark.parametrize("penalize_bias", [False, True])
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_objective_is_refused(name, wrong, penalize_bias):
    change, refusing = WRONG[wrong]
    problem = next(p for p in problems(name, range(1, 50), N=5, D=4, L=3) if "bias" in p.case.parameters)
    problem.objective = replace(problem.objective, penalize_bias=penalize_bias)
    for check in CHECKS:
        check(problem, problem.objective)
        if check in refusing:
            with pytest.raises(AssertionError):
                check(problem, change(name, problem.objective))


# --- chunks, entries, weights ----------------------------------------------------------------------------------------


def everything(problem: Problem, objective: Objective, *samples: Tensor, **options) -> list[Tensor]:
    """Value, C, both gradients and both Hessian-vector products."""
    direction = [tensor.cos() for tensor in problem.parameters]
    input, _, sample_weight = samples
    return [
        objective.value(*problem.parameters, *samples),
        *objective.gradient(*problem.parameters, *samples, **options),
        *objective.hessian_vector_product(*problem.parameters, *direction, input, sample_weight),
    ]


def assert_same(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-13) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert float((one - other).norm()) <= tolerance * float(flat(expected).norm())


@pytest.mark.slow
def test_chunked_is_unchunked(name):
    for problem in problems(name, range(20), N=37):
        expected = everything(problem, replace(problem.objective, rows=None), *problem.samples)
        for rows in (1, 5, 36, 37, 100):
            assert_same(everything(problem, replace(problem.objective, rows=rows), *problem.samples), expected)
    for problem in problems(name, range(2), N=1201, L=5):  # long enough for a product in groups of samples
        check_autograd(problem, replace(problem.objective, rows=None))
        check_hessian_vector_product(problem, replace(problem.objective, rows=None))
        check_hessian_vector_product(problem, replace(problem.objective, rows=700))


def test_a_chunk_without_weight_counts_nothing(name):
    problem = Problem(name, 1, N=12)
    problem.case.sample_weight[3:6] = 0
    expected = everything(problem, replace(problem.objective, rows=None), *problem.samples)
    assert all(tensor.isfinite().all() for tensor in expected)
    assert_same(everything(problem, replace(problem.objective, rows=3), *problem.samples), expected)


@pytest.mark.parametrize("rows", [None, 4])
def test_zero_weight_is_a_row_left_out_and_counts_are_repeated_rows(name, rows):
    problem = Problem(name, 3, N=9)
    counts = torch.tensor([1, 0, 3, 2, 0, 1, 1, 4, 0])
    objective = replace(problem.objective, rows=rows)
    kept, index = counts > 0, torch.arange(9).repeat_interleave(counts)
    found = everything(problem, objective, problem.input, problem.case.target, counts.double())
    left_out = problem.input[kept], problem.case.target[kept], counts[kept].double()
    assert_same(found, everything(problem, objective, *left_out))
    assert_same(found, everything(problem, objective, problem.input[index], problem.case.target[index], None))


@pytest.mark.parametrize("rows", [None, 4])
def test_stopped_entries_have_zero_gradient(name, rows):
    problem = Problem(name, 3, N=9, L=4)
    objective = replace(problem.objective, rows=rows)
    active = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    expected = objective.gradient(*problem.parameters, *problem.samples)
    found = objective.gradient(*problem.parameters, *problem.samples, active=active)
    assert torch.equal(found[0], expected[0])
    for grad, whole in zip(found[1:], expected[1:], strict=True):
        assert torch.equal(grad[::2], whole[::2])
        assert not grad[1::2].any()


def test_no_penalty_is_decided_once(name):
    problem = Problem(name, 3, N=9, L=4)
    assert Objective(OBJECTIVES[name], torch.tensor([0.0, 0.1])).penalized
    objective = Objective(OBJECTIVES[name], torch.zeros(4, dtype=torch.float64))
    assert not objective.penalized
    loss, *_ = objective.gradient(*problem.parameters, *problem.samples)
    assert torch.equal(objective.value(*problem.parameters, *problem.samples), loss)
    assert not replace(objective, l2=objective.l2[1:]).penalized


# --- processes -------------------------------------------------------------------------------------------------------


def in_processes(calls: list[Callable[[Callable], list[Tensor]]], in_place: bool) -> tuple[list[list[Tensor]], int]:
    """Runs each call as one process of several; returns their results, and how often they added up.

    The calls run one after another, again and again, each time one sum further: a sum not known yet ends a call.
    """
    sums: list[Tensor] = []

    class Unknown(Exception):
        pass

    def run(call):
        asked = []

        def total(tensor: Tensor) -> Tensor:
            asked.append(tensor.clone())
            if len(asked) > len(sums):
                raise Unknown
            return tensor.copy_(sums[len(asked) - 1]) if in_place else sums[len(asked) - 1].clone()

        try:
            return call(total), None
        except Unknown:
            return None, asked[-1]

    while True:
        results = [run(call) for call in calls]
        if all(asked is None for _, asked in results):
            return [result for result, _ in results], len(sums)
        sums.append(sum(asked for _, asked in results))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("rows", [None, 4])
def test_processes_together_are_one(name, rows, in_place):
    for problem in problems(name, range(2, 8), N=15):
        objective = replace(problem.objective, rows=rows)
        expected = everything(problem, objective, *problem.samples)
        parts = [[None if t is None else t[part] for t in problem.samples] for part in (slice(0, 9), slice(9, 15))]
        calls = [
            lambda total, part=part, o=objective, p=problem: everything(p, replace(o, total=total), *part)
            for part in parts
        ]
        results, sums = in_processes(calls, in_place)
        for found in results:
            assert_same(found, expected)
        assert sums == 2 * 3  # for each of the three methods: the samples' weights, then the result


@pytest.mark.parametrize("rows", [None, 4])
def test_share_takes_one_sum(name, rows):
    for problem in problems(name, range(2, 8), N=15):
        objective, weights = replace(problem.objective, rows=rows), problem.case.sample_weight
        weights = torch.ones(15, dtype=torch.float64) if weights is None else weights
        calls = []
        for part in (slice(0, 9), slice(9, 15)):
            samples = [None if t is None else t[part] for t in problem.samples]
            share = float(weights[part].sum() / weights.sum())
            calls.append(
                lambda total, s=samples, share=share, o=objective, p=problem: list(
                    replace(o, total=total).gradient(*p.parameters, *s, share=share)
                )
            )
        results, sums = in_processes(calls, in_place=True)
        for found in results:
            assert_same(found, list(objective.gradient(*problem.parameters, *problem.samples)))
        assert sums == 1


def test_share_of_one_process_scales_the_loss_and_not_the_penalty(name):
    problem = Problem(name, 3, N=9)
    (loss, *whole), (scaled, *found) = (
        problem.objective.gradient(*problem.parameters, *problem.samples, share=share) for share in (None, 0.3)
    )
    _, *penalty = problem.objective.gradient(*problem.parameters, *problem.samples, share=0.0)
    assert relative_error(scaled, 0.3 * loss) <= 1e-14
    assert relative_error(flat(found), 0.3 * flat(whole) + 0.7 * flat(penalty)) <= 1e-13


def test_a_process_without_weight_adds_nothing(name):
    problem = Problem(name, 1, N=12)
    problem.case.sample_weight[6:] = 0
    expected = everything(problem, replace(problem.objective, rows=None), *problem.samples)
    parts = [[t[part] for t in problem.samples] for part in (slice(0, 6), slice(6, 12), slice(12, 12))]
    calls = [
        lambda total, part=part: everything(problem, replace(problem.objective, rows=None, total=total), *part)
        for part in parts
    ]
    for found in in_processes(calls, in_place=True)[0]:
        assert_same(found, expected)


@pytest.mark.parametrize("samples", [0, 6])
def test_a_pass_of_a_process_with_few_samples_or_none(name, samples):
    problem = Problem(name, 1, N=12)
    parts = [[t[part] for t in problem.samples] for part in (slice(0, samples), slice(samples, 12))]
    calls = [
        lambda total, part=part: tuple(
            replace(problem.objective, total=total).data_term(*problem.parameters, *part, every=1)
        )
        for part in parts
    ]
    expected = problem.objective.data_term(*problem.parameters, *problem.samples, every=1)
    for found in in_processes(calls, in_place=True)[0]:
        assert_same(found, expected)


def test_the_order_in_which_threads_end_changes_no_bit(name, monkeypatch):
    monkeypatch.setattr("handgrad.functions.objective.LEAST_ROWS", 5)
    monkeypatch.setattr("handgrad.functions.objective.CACHED", 1)
    problem, orders = Problem(name, 1, N=52), (list, lambda calls: calls[::-1], lambda calls: calls[1::2] + calls[::2])
    first, *others = (
        replace(problem.objective, run=lambda calls, order=order: [call() for call in order(calls)]).data_term(
            *problem.parameters, *problem.samples, every=2
        )
        for order in orders
    )
    for other in others:
        assert all(torch.equal(*pair) for pair in zip(first, other, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_no_share_of_a_process(name, dtype):
    """Three processes with the same samples are one: in half precision a third is not a third, and is not used."""
    problem = Problem(name, 2, N=12)
    parameters, samples = [t.to(dtype) for t in problem.parameters], problem.samples[:2]
    objective = replace(problem.objective, rows=None, total=None)
    _, *whole = objective.gradient(*parameters, *samples)
    shared = replace(objective, total=lambda tensor: 3 * tensor, l2=objective.l2 * 0)
    loss, *found = shared.gradient(*parameters, *samples, share=1 / 3)
    _, *expected = replace(objective, l2=objective.l2 * 0).gradient(*parameters, *samples)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert {tensor.dtype for tensor in found} == {dtype}
    assert {tensor.dtype for tensor in whole} == {dtype}
    assert loss.dtype == torch.float64


# --- on a device ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_a_device_is_waited_for_once_however_many_chunks_there_are(name, weighted, monkeypatch):
    """On a device that is none: the same bits, tensors of two devices never meet, and results alone come back."""
    monkeypatch.setattr("handgrad.functions.objective.LEAST_ROWS", 1)
    monkeypatch.setattr("handgrad.functions.objective.CACHED", 1)
    monkeypatch.setattr("handgrad.functions.objective.ON_DEVICE", 1)
    problem = Problem(name, 3, N=40)
    weight, bias = (t[:1].detach() for t in problem.parameters)
    input, target, sample_weight = problem.samples if weighted else (*problem.samples[:2], None)
    expected = problem.objective.data_term(weight, bias, input, target, sample_weight, spread=torch.zeros(40))
    with pretended() as device:
        there = [None if t is None else t.to(DEVICE) for t in (input, target, sample_weight)]
        spread = torch.zeros(40, device=DEVICE)
        found = problem.objective.data_term(weight, bias, *there, spread=spread)
        assert dict(device.waits) == {"_to_copy": 1 + (there[2] is not None)}
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_the_coupling_is_that_of_the_samples_looked_at(name, every, seed, monkeypatch):
    """Of rows that differ from chunk to chunk, in chunks and parts; its diagonal and what was seen, row by row."""
    rows, L, drawn = 5, 2, Drawn(5, every, torch.device("cpu"))
    monkeypatch.setattr("handgrad.functions.objective.LEAST_ROWS", rows)
    monkeypatch.setattr("handgrad.functions.objective.CACHED", 1)
    monkeypatch.setattr("handgrad.functions.objective.PARTS", 3)
    problem = Problem(name, seed, N=52, L=L)
    (x, target, s), (weight, bias) = problem.samples, problem.parameters
    found = problem.objective.data_term(weight, bias, x, target, s, every=every)
    z = torch.einsum("lki,ni->lnk", weight, x) + bias[:, None]
    p = torch.softmax(z, 2) if name == "softmax" else torch.sigmoid(z)
    bends = torch.diag_embed(p) - p[:, :, :, None] * p[:, :, None]
    r = torch.ones(len(x), dtype=torch.float64) if s is None else s.double()
    r = r / r.sum()
    own = [torch.arange(rows)[drawn.rows(chunk, rows)].tolist() for chunk in range(every)]
    assert sorted(row for chunk in own for row in chunk) == list(range(rows)), "each row once in so many chunks"
    looked_at = torch.tensor([i % rows in own[i // rows % every] for i in range(len(x))])
    few = r * looked_at
    if name == "softmax":
        expected = every * torch.einsum("n,lnjk->ljk", few, bends)
        torch.testing.assert_close(found.coupling, expected, rtol=1e-9, atol=1e-14)
    if every > 1 or name != "softmax":
        diagonal = torch.einsum("n,lnk->lk", r, p * (1 - p))
        torch.testing.assert_close(found.bend, diagonal, rtol=1e-9, atol=1e-14)
    if every > 1 and name == "softmax":
        moments = torch.cat((x, x.square().sum(1, keepdim=True), torch.ones(len(x), 1)), 1).double()
        torch.testing.assert_close(found.seen, (few @ moments).expand(L, -1), rtol=1e-9, atol=1e-14)


def test_where_a_device_has_no_float64_there_is_none(name, monkeypatch):
    monkeypatch.setattr("handgrad.functions.samples.WITHOUT_FLOAT64", ("meta",))
    problem = Problem(name, 3, N=12)
    data = [t.detach().float() for t in (*problem.parameters, problem.samples[0])]
    objective = replace(problem.objective, l2=problem.objective.l2.float(), rows=5, total=None)
    expected = objective.gradient(*data, problem.samples[1])
    with pretended(float64=False) as device:
        objective = replace(objective, l2=objective.l2.to(DEVICE))
        there = [t.to(DEVICE) for t in (*data, problem.samples[1])]
        device.waits.clear()
        found = objective.gradient(*there)
        value = objective.value(*there)
        assert not device.waits
        found, value = [t.cpu() for t in found], value.cpu()
    assert found[0].dtype == value.dtype == torch.float32
    torch.testing.assert_close(found[0], expected[0].float())
    assert all(torch.equal(*pair) for pair in zip(found[1:], expected[1:], strict=True))
    with pytest.raises(AssertionError, match="float64"), pretended(float64=False):
        torch.zeros(1, dtype=torch.float64, device=DEVICE)


# --- dtypes, modes, refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [None, 4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_input_of_another_dtype_is_cast(name, dtype, rows):
    problem = Problem(name, 3, N=9)
    objective = replace(problem.objective, rows=rows)
    input, target, sample_weight = problem.samples
    narrow = input.to(dtype), target, sample_weight.to(dtype)
    wide = narrow[0].double(), target, narrow[2].double()
    assert_same(everything(problem, objective, *narrow), everything(problem, objective, *wide), 1e-15)


def test_dtypes_of_the_results(name):
    problem = Problem(name, 3, N=9)
    problem.weight, problem.bias = problem.weight.float(), problem.bias.float()
    wanted = [torch.float64, torch.float64, *[torch.float32] * 4]
    for objective in (problem.objective, replace(problem.objective, rows=4)):
        assert [tensor.dtype for tensor in everything(problem, objective, *problem.samples)] == wanted


def test_gradient_whatever_the_mode_and_the_leaves(name):
    problem = Problem(name, 3, N=9)
    expected = everything(problem, problem.objective, *problem.samples)
    problem.weight, problem.bias = (torch.nn.Parameter(tensor) for tensor in problem.parameters)
    for mode in (torch.no_grad, torch.enable_grad):
        with mode():
            found = everything(problem, problem.objective, *problem.samples)
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
        assert not any(tensor.requires_grad for tensor in found)
    assert problem.weight.grad is None
    assert problem.objective.penalty(problem.weight, problem.bias).requires_grad


def test_parameters_are_left_alone(name):
    problem = Problem(name, 3, N=9)
    before = [tensor.clone() for tensor in (*problem.parameters, *problem.samples)]
    everything(problem, problem.objective, *problem.samples)
    assert all(torch.equal(*pair) for pair in zip((*problem.parameters, *problem.samples), before, strict=True))


def test_curvature_keeps_its_digits():
    z = torch.tensor([[[40.0, -40.0, 800.0]]], dtype=torch.float64)
    found = LOGISTIC.curvature(z, torch.ones_like(z)).flatten()
    assert found[:2].tolist() == pytest.approx([float(torch.tensor(-40.0).double().exp())] * 2, rel=1e-14)
    assert SOFTMAX.curvature(1e20 * torch.randn(1, 3, 4), torch.ones(1, 3, 4)).isfinite().all()


@pytest.mark.parametrize("rows", [1, 4, None])
def test_refused(name, rows):
    problem = Problem(name, 3, N=9)
    input, target, sample_weight = problem.samples
    objective = replace(problem.objective, rows=rows)
    if rows is None:
        assert objective.value(*problem.parameters, input, target, 0 * sample_weight).isnan().all()
    else:
        with pytest.raises(ValueError, match="the samples' weights add up to 0"):
            objective.gradient(*problem.parameters, input, target, 0 * sample_weight)
    with pytest.raises(IndexError, match="target holds 9"):
        objective.gradient(*problem.parameters, input, target * 0 + 9, sample_weight)
    for samples in (1, 8, 10):
        with pytest.raises(ValueError, match=rf"sample_weight has shape \({samples},\); expected \(N,\) with N = 9"):
            objective.hessian_vector_product(*problem.parameters, *problem.parameters, input, torch.ones(samples))
    with pytest.raises(ValueError, match=r"l2 has shape \(\); expected \(L,\)"):
        Objective(OBJECTIVES[name], torch.tensor(1.0))
    with pytest.raises(ValueError, match="rows is 0; expected at least one sample per chunk"):
        replace(objective, rows=0)
