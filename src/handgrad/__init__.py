"""Linear classifiers whose gradients are derived by hand, and proven before they train.

`handgrad.functions` has the losses and the penalty as functions for one's own modules; `handgrad.fit` trains. Importing
this package loads neither Lightning nor Hydra.
"""

__version__ = "0.1.0"
