"""A device that is none: tensors that say they lie on ``meta``, keep their numbers, and refuse what a real one would.

What is computed is computed on the CPU, so that results can be compared bit for bit. Refused are operations on tensors
of both devices, and, where it is asked for, float64 there; counted is whatever waits for the device.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
MIXED = ("_to_copy", "copy_", "index", "index_put_", "_index_put_impl_")  # which take tensors of another device


class Pretended(Tensor):
    """A tensor there; ``held`` has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Pretended":
        about = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return Tensor._make_wrapper_subclass(cls, held.shape, device=DEVICE, **about)

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        raise AssertionError(f"{function}: outside of the device's context")


class PretendedDevice(TorchDispatchMode):
    """While it is entered there is the device.

    Attributes:
        waits: how often each operation waited for it, by name.
    """

    def __init__(self, float64: bool = True) -> None:
        super().__init__()
        self.float64, self.waits = float64, Counter[str]()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options, name = dict(options or {}), function.overloadpacket.__name__
        asked = options.get("device")
        if asked is not None:
            options["device"] = "cpu"
        given = [value for value in tree_flatten((arguments, options))[0] if isinstance(value, Tensor)]
        there = [value for value in given if isinstance(value, Pretended)]
        plain = [value for value in given if not isinstance(value, Pretended) and value.dim()]
        if there and plain and name not in MIXED:
            raise AssertionError(f"{function}: tensors of two devices")
        to_device = bool(there) if asked is None else torch.device(asked) == DEVICE
        if name == "copy_":
            to_device = isinstance(arguments[0], Pretended)
        if there and (name in ("_local_scalar_dense", "nonzero", "equal") or not to_device):
            self.waits[name] += 1
        found = function(*tree_map(held, arguments), **tree_map(held, options))
        return self.sent(found, arguments, function) if to_device else found

    def sent(self, found: Any, arguments: Any, function: Any) -> Any:
        """Returns results as tensors there; what was changed in place is the tensor that it was."""
        known = {id(held(value)): value for value in tree_flatten(arguments)[0] if isinstance(value, Pretended)}

        def there(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if not self.float64 and value.dtype == torch.float64:
                raise AssertionError(f"{function}: float64, which the device has not")
            return known.get(id(value)) if id(value) in known else Pretended(value)

        return tree_map(there, found)


def held(value: Any) -> Any:
    """Returns what lies below a tensor there; anything else as it is."""
    return value.held if isinstance(value, Pretended) else value


@contextmanager
def pretended(float64: bool = True) -> Iterator[PretendedDevice]:
    """Lends the device out. What is not recorded there is so by ``no_grad``: there are no inference tensors of it."""
    inference, plain = torch.inference_mode, torch.no_grad
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "__enter__", lambda self: plain.__enter__(self.__dict__.setdefault("plain", plain())))
        patch.setattr(inference, "__exit__", lambda self, *error: plain.__exit__(self.__dict__.pop("plain"), *error))
        with PretendedDevice(float64) as device:
            yield device
