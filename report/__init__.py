"""The course report, drawn from runs of this project: a client of the package like any other."""

import src  # noqa: F401
