"""No process outlives the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from conftest import ROOT

from jepa.runs.processes import cores, left_by_dvc

POOL = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from jepa.runs.processes import die_with_parent

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with ProcessPoolExecutor(2, mp_context=context, initializer=die_with_parent) as pool:
        workers = {pool.submit(os.getpid).result() for _ in range(20)}
        print(*workers, flush=True)
        time.sleep(60)
"""
CHAIN = """
import subprocess, sys
start = "from jepa.runs.processes import die_with_parent; die_with_parent(); "
child = start + "import os, time; print(os.getpid(), flush=True)"
subprocess.run([sys.executable, "-c", child + "; time.sleep(60)"])
"""
FAULTS = """
import resource, sys, torch
from jepa.runs.processes import keep_memory

torch.set_num_threads(1)
if sys.argv[1] == "keep":
    keep_memory()
for _ in range(3):  # eight times eight megabytes, used and freed
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    parts = [torch.zeros(2**21) for _ in range(8)]
    del parts
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_workers_of_a_killed_process_end(tmp_path, method):
    (tmp_path / "pool.py").write_text(POOL)
    expect_end([sys.executable, str(tmp_path / "pool.py"), method])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_child_of_a_killed_process_ends():
    expect_end([sys.executable, "-c", CHAIN])


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="the GNU C library")
def test_kept_memory_is_not_asked_for_again():
    givers = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}  # every large block goes back to the system at once
    options = {"env": givers, "capture_output": True, "text": True, "check": True}
    again, kept = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], **options).stdout) for how in ("give back", "keep")
    )
    assert again >= 8 * 2**23 // os.sysconf("SC_PAGE_SIZE") > 4 * kept


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "300000 100000"}, 3),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "10000 100000"}, 1),
        ({"cpu.max": "1600000 100000"}, 8),
        ({"cpu.max": "of another form"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "50000"}, 4),
    ],
    ids=str,
)
def test_cores_are_what_the_system_and_the_container_allow(tmp_path, monkeypatch, files, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert cores(tmp_path) == expected
    assert 1 <= cores() <= 8


def above(stage: str | None, group: int) -> SimpleNamespace:
    """Return a process above this one: the stage in its environment, and its group as its number."""
    return SimpleNamespace(pid=group, environ=lambda: {} if stage is None else {"DVC_STAGE": stage})


@pytest.mark.skipif(sys.platform == "win32", reason="no process groups")
@pytest.mark.parametrize(
    ("stage", "parents", "expected"),
    [
        ("01", [above(None, 7)], False),  # dvc
        ("01", [above("01", 7), above(None, 7)], False),  # a shell, dvc
        ("01", [above("01", 7), above(None, 1)], True),  # a shell, init
        ("01", [above(None, 1)], True),
        ("01", [above("02", 7), above("02", 2)], False),  # dvc as the command of another stage
        (None, [above(None, 1)], False),  # a command typed by hand, whose terminal was closed
        ("01", [], False),  # nobody to be seen, in a container
    ],
)
def test_command_of_a_stage_is_left_where_no_dvc_stands_above_it(monkeypatch, stage, parents, expected):
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(parents=lambda: parents))
    monkeypatch.setattr(os, "getpgrp", lambda: 7)
    monkeypatch.setattr(os, "getpgid", lambda pid: pid)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    if stage is not None:
        monkeypatch.setenv("DVC_STAGE", stage)
    assert left_by_dvc() == expected


def expect_end(command: list[str]) -> None:
    """Start a process that prints those of its children, kill it, and wait until none is left of its group."""
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)
    try:
        assert all(alive(int(pid)) for pid in parent.stdout.readline().split())
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        wait(lambda: not members(parent.pid))
    finally:
        parent.stdout.close()
        for pid in members(parent.pid):
            os.kill(pid, signal.SIGKILL)


def members(session: int) -> list[int]:
    """Return the living processes of a session."""
    pids = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    return [pid for pid in pids if alive(pid) and int(status(pid)[3]) == session]


def alive(pid: int) -> bool:
    """Return whether a process runs; one that ended and waits to be collected does not."""
    return status(pid)[0] not in ("Z", "X")


def status(pid: int) -> list[str]:
    """Return state, parent, group, session and more of a process (proc(5), stat)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["X", "0", "0", "0"]


def wait(condition, seconds: float = 20) -> None:
    """Wait until a condition holds, fail if it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
