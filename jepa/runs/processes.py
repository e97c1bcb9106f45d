"""How the processes of a run behave: one thread each, nothing that differs from run to run, no orphans."""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

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
    """Have this process end when its parent dies, however it dies, and the command of a DVC stage when its dvc does.

    A worker of a pool watches the process that made the pool, whose child a fork server's worker is not. Any other
    process asks the system (Linux; elsewhere nothing happens), and looks for its dvc now and again and again: a shell
    may stand between the two and outlive dvc, and dvc may have died before this process asked.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()
        return
    before = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != before or left_by_dvc():
        sys.exit(128 + signal.SIGTERM)
    if "DVC_STAGE" in os.environ:
        threading.Thread(target=_end_without_dvc, daemon=True).start()


def left_by_dvc() -> bool:
    """Return whether this process is the command of a DVC stage and its dvc has died.

    DVC names the stage in the environment of its commands and leaves them in its own process group. So the first
    process above that does not have the same stage in its environment is dvc, or else who takes in orphans: init or a
    session manager, which is in another group.
    """
    stage = os.environ.get("DVC_STAGE")
    if stage is None or sys.platform == "win32":
        return False
    import psutil  # of DVC's own dependencies

    for above in psutil.Process().parents():
        try:
            if above.environ().get("DVC_STAGE") == stage:  # a shell
                continue
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            pass  # of another user, as init is
        try:
            return os.getpgid(above.pid) != os.getpgrp()
        except OSError:  # it just died, or is out of sight
            return True
    return False


def cores(control: Path = Path("/sys/fs/cgroup")) -> int:
    """Return on how many cores this process may compute at a time, as its container allows (Linux), at least 1.

    Args: control: where the system shows the limits of the container, in either version of control groups.
    """
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on
        found = os.process_cpu_count() or 1
    else:
        found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((control / name).read_text() for name in names).split()
            if quota not in ("max", "-1"):
                return max(1, min(found, math.ceil(int(quota) / int(period))))
        except (OSError, ValueError):  # no such file, or none of that form
            continue
    return max(1, found)


def keep_memory() -> None:
    """Have this process keep the memory it frees (GNU C library; elsewhere nothing happens).

    A training step frees megabytes and asks for them again. By default they go back to the system, which hands them out
    page by page and cleared: 2,000 page faults and a seventh of the time of a step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, 2**30)


def _end_without_dvc() -> None:
    """Wait for the end of the dvc whose command this process is, then end this process as if it was asked to."""
    while not left_by_dvc():
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    """Wait for the end of `parent`, then end this process at once."""
    parent.join()
    os._exit(1)
