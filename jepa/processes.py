"""How the processes of a run behave: one thread each, nothing that differs from run to run, no orphans."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # the work is spread over processes; two threads each would be slower and not repeatable
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",  # the order of a set of strings
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a warning of the debugger in every kernel
    "TQDM_DISABLE": "1",  # progress bars would be kept as output
    "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, not one in the user's home
}
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """Have the system end this process when its parent dies, however it dies (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the request
            sys.exit(128 + signal.SIGTERM)
