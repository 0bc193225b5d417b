"""Peers and this project side by side: ``python -m benchmarks``, or ``make bench``."""

import src  # noqa: F401
