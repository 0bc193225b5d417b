"""Second derivatives, forward mode, vmap and torch.compile of every loss, against autograd of the plain formula."""

import itertools

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from handgrad.compat import quick_grad
from handgrad.functions.l2_penalty import l2_penalty
from tests.functions.contract import LOSSES, Loss, plain_penalty, relative_error

ALL = (0, 1, 2)  # input, weight, bias
SECOND_ORDER = {
    "hessian": hessian,
    "reverse over reverse": lambda f, argnums: jacrev(jacrev(f, argnums), argnums),
    "reverse over forward": lambda f, argnums: jacrev(jacfwd(f, argnums), argnums),
    "forward over forward": lambda f, argnums: jacfwd(jacfwd(f, argnums), argnums),
}
# torch's own forward-mode tables are built with the deprecated torch.jit.script.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")]


class Problem:
    """A loss and its plain formula as functions of (input, weight, bias) on one batch of random numbers."""

    def __init__(self, loss: Loss, L=2, N=5, D=3, batch=(), weighted=False):
        generator = torch.Generator().manual_seed(7)
        self.loss, K = loss, 1 if loss is LOSSES["binary"] else 4

        def normal(*shape):
            return torch.randn(*batch, *shape, generator=generator, dtype=torch.float64)

        self.arguments = (normal(N, D), normal(L, K, D), normal(L, K))
        if loss is LOSSES["multilabel"]:
            self.target = torch.randint(0, 2, (*batch, N, K), generator=generator)
        else:
            self.target = torch.randint(0, max(K, 2), (*batch, N), generator=generator)
        self.grad_loss = torch.randn(L, generator=generator, dtype=torch.float64)
        self.grad_logits = torch.randn(L, N, K, generator=generator, dtype=torch.float64)
        self.sample_weight = normal(N).exp() if weighted else None
        if weighted:
            self.sample_weight[..., 1] = 0

    def outputs(self, function):
        return lambda input, weight, bias: function(input, weight, self.target, bias, self.sample_weight)

    def scalar(self, function, uses="loss and logits"):
        """One number, curved in the logits too, so that their part of the second derivative is not zero."""

        def total(input, weight, bias, target=self.target, sample_weight=self.sample_weight):
            loss, logits = function(input, weight, target, bias, sample_weight)
            total = (self.grad_loss * loss).sum()
            return total + (self.grad_logits * logits.sin()).sum() if uses == "loss and logits" else total

        return total


def assert_same(found, expected, tolerance=1e-13):
    found, expected = (torch.utils._pytree.tree_leaves(tree) for tree in (found, expected))
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one.detach(), other.detach()) <= tolerance


@pytest.fixture(params=itertools.product(LOSSES, (False, True)), ids=lambda p: p[0] + " weighted" * p[1])
def problem(request) -> Problem:
    name, weighted = request.param
    return Problem(LOSSES[name], weighted=weighted)


@pytest.fixture(params=LOSSES)
def loss(request) -> Loss:
    return LOSSES[request.param]


def test_gradcheck(problem):
    arguments = [argument.requires_grad_() for argument in problem.arguments]
    function = problem.outputs(problem.loss.function)
    assert torch.autograd.gradcheck(
        function, arguments, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )
    assert torch.autograd.gradgradcheck(function, arguments, check_fwd_over_rev=True, check_batched_grad=True)


@pytest.mark.parametrize("uses", ["loss", "loss and logits"])
@pytest.mark.parametrize("derivative", SECOND_ORDER)
def test_second_derivatives(problem, derivative, uses):
    found = SECOND_ORDER[derivative](problem.scalar(problem.loss.function, uses), ALL)(*problem.arguments)
    expected = jacrev(jacrev(problem.scalar(problem.loss.plain, uses), ALL), ALL)(*problem.arguments)
    assert_same(found, expected)


@pytest.mark.parametrize("order", list(itertools.product((jacrev, jacfwd), repeat=3)))
def test_third_derivatives(problem, order):
    def third(function, order):
        for transform in order:
            function = transform(function, 1)
        return function(*problem.arguments)

    expected = third(problem.scalar(problem.loss.plain), (jacrev,) * 3)
    assert_same(third(problem.scalar(problem.loss.function), order), expected)


@pytest.mark.parametrize("transform", [jacrev, jacfwd])
@pytest.mark.parametrize("argument", ALL)
def test_jacobians(problem, transform, argument):
    found = transform(problem.outputs(problem.loss.function), argument)(*problem.arguments)
    assert_same(found, jacrev(problem.outputs(problem.loss.plain), argument)(*problem.arguments))


def test_hessian_vector_products_without_functorch(problem):
    """Double backward, and forward_ad nested with backward either way, on tensors that record their graph."""
    arguments = [argument.requires_grad_() for argument in problem.arguments]
    tangents = [torch.randn_like(argument) for argument in arguments]
    grads = torch.autograd.grad(problem.scalar(problem.loss.plain)(*arguments), arguments, create_graph=True)
    expected = torch.autograd.grad(grads, arguments, tangents)
    function = problem.scalar(problem.loss.function)

    grads = torch.autograd.grad(function(*arguments), arguments, create_graph=True)
    assert_same(torch.autograd.grad(grads, arguments, tangents), expected)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*pair) for pair in zip(arguments, tangents, strict=True)]
        output = function(*duals)
        slope = forward_ad.unpack_dual(output).tangent
        assert_same(torch.autograd.grad(slope, arguments), expected)
        grads = torch.autograd.grad(function(*duals), duals, create_graph=True)
        assert_same([forward_ad.unpack_dual(value).tangent for value in grads], expected)


def subsets(arguments: int) -> list[tuple]:
    """All ways to batch at least one of so many arguments."""
    return [dims for dims in itertools.product((0, None), repeat=arguments) if any(dim == 0 for dim in dims)]


@pytest.mark.parametrize("dims", [*subsets(4), *subsets(5)], ids=lambda dims: "".join("-0"[dim == 0] for dim in dims))
def test_vmap(loss, dims):
    """Any of input, weight, bias, target and sample_weight may be batched: values, gradients, tangents, curvature."""
    batched = Problem(loss, batch=(3,), weighted=len(dims) == 5)
    everything = (*batched.arguments, batched.target, batched.sample_weight)
    arguments = [argument if dim == 0 else argument[0] for argument, dim in zip(everything, dims, strict=False)]

    def results(function):
        scalar = batched.scalar(function)
        yield vmap(lambda x, w, b, y, *s: function(x, w, y, b, *s), dims)(*arguments)
        yield vmap(grad(scalar, ALL), dims)(*arguments)
        yield grad(lambda *batch: vmap(scalar, dims)(*batch).sum(), ALL)(*arguments)
        yield vmap(jacrev(grad(scalar, 1), ALL), dims)(*arguments)
        yield vmap(lambda x, w, b, y, *s: jvp(lambda w: function(x, w, y, b, *s), (w,), (w.cos(),))[1], dims)(
            *arguments
        )

    for found, expected in zip(results(loss.function), results(loss.plain), strict=True):
        assert_same(found, expected)


def test_forward_mode_around_vmap_is_refused_by_torch(problem):
    """torch 2.14 can not tell a tangent under a batch axis; were it silent, the tangent would be zero."""
    input, weight, bias = problem.arguments
    function = problem.outputs(problem.loss.function)
    with pytest.raises(RuntimeError, match="Batching rule not implemented"):
        jvp(lambda w: vmap(lambda w: function(input, w, bias))(w.expand(3, *w.shape)), (weight,), (weight.cos(),))


def test_vmapped_weights_are_the_path_axis(loss):
    problem = Problem(loss, L=4)
    input, weight, bias = problem.arguments
    found = vmap(lambda w, b: loss.function(input, w[None], problem.target, b[None]))(weight, bias)
    expected = loss.function(input, weight, problem.target, bias)
    assert_same([tensor.squeeze(1) for tensor in found], expected)


# --- the sample weights have no derivative: asked for, it is refused -------------------------------------------------

DERIVATIVES_OF_SAMPLE_WEIGHT = {
    "backward": lambda f, s: f(s.requires_grad_()),
    "grad": lambda f, s: grad(f)(s),
    "jacfwd": lambda f, s: jacfwd(f)(s),
    "jvp": lambda f, s: jvp(f, (s,), (s.cos(),)),
    "hessian": lambda f, s: hessian(f)(s),
    "grad of vmap": lambda f, s: grad(lambda s: vmap(f)(s.expand(3, -1)).sum())(s),
    "vmap of grad": lambda f, s: vmap(grad(f))(s.expand(3, -1)),
    "grad of vmap of vmap": lambda f, s: grad(lambda s: vmap(vmap(f))(s.expand(3, 2, -1)).sum())(s),
    "vmap of jvp": lambda f, s: vmap(lambda s: jvp(f, (s,), (s.cos(),)))(s.expand(3, -1)),
}


@pytest.mark.parametrize("derivative", DERIVATIVES_OF_SAMPLE_WEIGHT)
def test_derivative_of_sample_weight_is_refused(loss, derivative):
    problem = Problem(loss, weighted=True)
    input, weight, bias = problem.arguments
    weight.requires_grad_()

    def total(sample_weight):
        return loss.function(input, weight, problem.target, bias, sample_weight)[0].sum()

    with pytest.raises(ValueError, match=r"^sample_weight is to be differentiated, and no gradient is derived for it"):
        DERIVATIVES_OF_SAMPLE_WEIGHT[derivative](total, problem.sample_weight)


def test_quick_grad_is_torchs(problem):
    arguments = tuple(argument.requires_grad_() for argument in problem.arguments)
    loss, _ = problem.outputs(problem.loss.function)(*arguments)
    expected = torch.autograd.grad(loss, arguments, problem.grad_loss, retain_graph=True)
    assert all(
        torch.equal(*pair) for pair in zip(quick_grad(loss, arguments, problem.grad_loss), expected, strict=True)
    )
    assert all(argument.grad is None for argument in arguments)


# --- torch.compile: the graph breaks around the function, which then runs as it stands --------------------------------


EACH_FUNCTION = [(name, weighted) for name in LOSSES if name != "multilabel" for weighted in (False, True)]
COMPILED = pytest.mark.parametrize(
    "problem", EACH_FUNCTION, indirect=True, ids=lambda pair: pair[0] + " weighted" * pair[1]
)  # several labels are of the same Function as one


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def objective(problem, function, penalty=l2_penalty):
    def total(input, weight, bias):
        loss, logits = function(input, weight, problem.target, bias, problem.sample_weight)
        return (loss + penalty(weight, problem.grad_loss)).sum() + logits.sin().sum()

    return total


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo's look at our outputs
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
@COMPILED
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_gradient(problem, backend):
    arguments = [argument.requires_grad_() for argument in problem.arguments]
    found = torch.compile(objective(problem, problem.loss.function), backend=backend)(*arguments)
    expected = objective(problem, problem.loss.plain, plain_penalty)(*arguments)
    assert_same(found, expected)
    assert_same(*(torch.autograd.grad(value, arguments) for value in (found, expected)))


@COMPILED
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_double_backward(problem):
    """torch compiles a graph's backward without its derivative and may drop that silently; here nothing is dropped."""
    weight = problem.arguments[1].requires_grad_()
    input, _, bias = problem.arguments

    def curvature(function):
        (slope,) = torch.autograd.grad(function(input, weight, bias)[0].sum(), weight, create_graph=True)
        return torch.autograd.grad(slope.square().sum() + weight.square().sum(), weight)

    found = curvature(torch.compile(problem.outputs(problem.loss.function), backend="aot_eager"))
    assert_same(found, curvature(problem.outputs(problem.loss.plain)))


@COMPILED
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_transforms(problem):
    scalar, plain = problem.scalar(problem.loss.function), problem.scalar(problem.loss.plain)
    expected = jacrev(jacrev(plain, 1), 1)(*problem.arguments)
    assert_same(torch.compile(hessian(scalar, 1), backend="aot_eager")(*problem.arguments), expected)
    tangents = tuple(argument.cos() for argument in problem.arguments)
    slope = sum((g * t).sum() for g, t in zip(grad(plain, ALL)(*problem.arguments), tangents, strict=True))
    compiled = torch.compile(scalar, backend="aot_eager")
    assert_same(jvp(compiled, problem.arguments, tangents)[1], slope)


@COMPILED
@pytest.mark.usefixtures("fresh_compiler")
def test_compilation_into_one_graph_is_refused(problem):
    arguments = [argument.requires_grad_() for argument in problem.arguments]
    compiled = torch.compile(problem.outputs(problem.loss.function), backend="aot_eager", fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="jvp"):
        compiled(*arguments)


@COMPILED
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("value", [-100, -1, 4])
def test_compiled_code_refuses_a_target_out_of_range(problem, value):
    input, weight, bias = problem.arguments
    target = problem.target.clone()
    target[1] = value
    compiled = torch.compile(problem.loss.function, backend="inductor")
    with pytest.raises((IndexError, RuntimeError), match=r"out of bounds|target holds"):
        compiled(input, weight, target, bias)
    with pytest.raises((IndexError, RuntimeError), match=r"out of bounds|target holds"):
        compiled(input, weight.requires_grad_(), target, bias)
