"""Once-for-all spaces, their accuracy models, and the search over them."""

import os

_THREADS = "OPENBLAS_NUM_THREADS"
# The matrices of an accuracy model are small: on several cores, numpy's threads wait for each other longer than they
# compute. OpenBLAS reads the variable when numpy is imported; child processes do not inherit it.
if not {_THREADS, "OMP_NUM_THREADS"} & set(os.environ):
    os.environ[_THREADS] = "1"
    import numpy  # noqa: F401

    del os.environ[_THREADS]
