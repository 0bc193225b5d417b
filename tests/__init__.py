"""The tests. NumPy's and SciPy's products get one thread: two of them, beside other work, are up to 20 times slower."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is imported, which is later
