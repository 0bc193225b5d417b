"""Linear classifiers whose gradients are derived by hand, and proven before they train.

`handgrad.LinearProbe` is a scikit-learn estimator, and `handgrad.load` makes one of a run; both are imported when they
are asked for. `handgrad.functions` has the losses and the penalty as functions for one's own modules; `handgrad.fit`
trains. Importing this package loads neither Lightning nor Hydra.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handgrad.estimator import LinearProbe as LinearProbe
    from handgrad.estimator import load as load

__version__ = "0.1.0"
__all__ = ["LinearProbe", "load"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'handgrad' has no attribute {name!r}")
    from handgrad import estimator

    return getattr(estimator, name)
