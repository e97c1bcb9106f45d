"""How the processes of a run behave: one thread each, nothing that differs from run to run, no orphans."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading

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
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of the GNU C library
LARGEST_MMAP_THRESHOLD = 2**25  # bytes, the most that it takes


def die_with_parent() -> None:
    """Have this process end when its parent dies, however it dies.

    A worker of a pool watches the process that made the pool, whose child a fork server's worker is not; any other
    process asks the system (Linux; elsewhere nothing happens).
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()
    elif sys.platform == "linux":
        before = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != before:  # it died before the request
            sys.exit(128 + signal.SIGTERM)


def keep_memory() -> None:
    """Have this process keep the memory it frees (GNU C library; elsewhere nothing happens).

    A training step frees megabytes and asks for them again. By default they go back to the system, which hands them out
    page by page and cleared: 2,000 page faults and a seventh of the time of a step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, 2**30)


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    """Wait for the end of `parent`, then end this process at once."""
    parent.join()
    os._exit(1)
