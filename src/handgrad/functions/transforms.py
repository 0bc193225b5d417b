"""What lets an autograd.Function be quick by itself and right under every transform of torch.func."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual
from torch.autograd.function import FunctionCtx

from handgrad.compat import forward_mode


def eager_version(function: Any) -> Any:
    """The same Function with ``forward(ctx, ...)``, which torch.func refuses and torch calls 7 us sooner.

    For a forward without ctx torch binds the arguments to its signature on every call, in Python.
    """

    def forward(ctx: FunctionCtx, *arguments: Tensor | None):
        output = function.forward(*arguments)
        function.setup_context(ctx, arguments, output)
        return output

    own = {"forward": staticmethod(forward), "setup_context": staticmethod(torch.autograd.Function.setup_context)}
    return type(function)(f"{function.__name__}Eager", (function,), own)  # torch's errors tell the name


def differentiable_jvp(jvp: Callable) -> Callable:
    """Makes ``jvp(saved_tensors, *tangents)`` a Function's ``jvp(ctx, *tangents)`` that nests rightly.

    torch calls ``jvp`` with forward mode switched off, for the levels of an outer transform too, so that
    ``jacfwd(jacfwd(f))`` would silently be zero (pytorch issue 197867). Switched on again, the saved tensors must first
    lose this level's own tangents, or those would be differentiated a second time.
    """

    @functools.wraps(jvp)
    def wrapped(ctx: Any, *tangents: Tensor | None):
        saved_tensors = [tensor if tensor is None else unpack_dual(tensor).primal for tensor in ctx.saved_tensors]
        with forward_mode(True):
            return jvp(saved_tensors, *tangents)

    return wrapped


def vmap_linear_loss(function: Any, info, in_dims: tuple, input: Tensor, *others: Tensor | None):
    """The vmap rule that torch generates, given an input that makes both the loss and the logits carry the batch.

    With a batched target or batched sample weights alone the logits would not, and the generated backward would add the
    gradient that arrives for them once per element of the batch.
    """
    weight_dim, _, bias_dim, _ = in_dims[1:]
    if weight_dim is None and bias_dim is None and in_dims[0] is None:
        input, in_dims = input.expand(info.batch_size, *input.shape), (0, *in_dims[1:])
    rule = {"generate_vmap_rule": True, "vmap": staticmethod(torch.autograd.Function.vmap)}
    generated: Any = type(function.__name__, (function,), rule)
    return torch.func.vmap(generated.apply, in_dims)(input, *others), (0, 0)
