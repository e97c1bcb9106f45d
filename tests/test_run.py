"""The runner: bad parameters stop a run before it starts, a failure tears nothing, equal runs leave equal bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from test_processes import alive, members, wait

from jepa.lab.run import parse

PARAMETERS = 'profile = "smoke"\nseeds = None\nrate = 0.1\noverrides = {}\nout = ""'


@pytest.fixture
def tree(tmp_path):
    """Return the root of a small checkout."""
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "data.dvc").touch()
    (tmp_path / "jepa").symlink_to(ROOT / "jepa")
    (tmp_path / "notebooks").mkdir()
    return tmp_path


def write(tree: Path, *sources: str, parameters: str = PARAMETERS) -> None:
    """Write notebooks/tiny.ipynb with these code cells."""
    cells = [nbformat.v4.new_code_cell(source) for source in (parameters, *sources)]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "no-such-kernel", "display_name": "elsewhere", "language": "python"}
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), tree / "notebooks/tiny.ipynb"
    )


def run(tree: Path, *arguments: str, notebook: str = "notebooks/tiny.ipynb") -> subprocess.CompletedProcess:
    """Run the runner in `tree`."""
    command = [sys.executable, "-m", "jepa.lab.run", notebook, "results/tiny.ipynb", *arguments]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("text", "value"),
    [("rate 1e-3", 1e-3), ("rate 2", 2.0), ("seeds [1, 2]", [1, 2]), ("overrides {a.b: 1e-4}", {"a.b": 1e-4})],
)
def test_values_are_read_as_yaml(text, value):
    name, given = text.split(" ", 1)
    (parsed,) = parse([(name, given)], {"seeds": None, "rate": 0.1, "overrides": {}}).values()
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "profil", "cpu"], "did you mean 'profile'"),
        (["-p", "nothing", "1"], "expected one of out, overrides, profile, rate, seeds"),
        (["-p", "rate", "fast"], "expected float like 0.1, found 'fast'"),
        (["-p", "overrides", "[1]"], "expected dict"),
        (["-p", "profile", "1"], "expected str"),
        (["-p", "rate", "1", "-p", "rate", "2"], "found twice"),
        (["-p", "overrides", "{"], "expected YAML"),
    ],
)
def test_bad_parameter_stops_the_run(tree, arguments, message):
    write(tree, "open('ran', 'w')")
    done = run(tree, *arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tree / "ran").exists()


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda tree, text: text.replace('"parameters"', '"other"'), {}, "one code cell tagged `parameters`, found 0"),
        (lambda tree, text: "{", {}, "tiny.ipynb: expected a notebook (JSON)"),
        (lambda tree, text: text, {"notebook": "notebooks/tony.ipynb"}, "one of tiny.ipynb in notebooks/, found 'tony"),
        (lambda tree, text: (tree / "data.dvc").unlink() or text, {}, "expected one in a checkout"),
    ],
)
def test_what_is_no_notebook_of_a_checkout_is_named(tree, change, arguments, message):
    write(tree)
    file = tree / "notebooks/tiny.ipynb"
    file.write_text(change(tree, file.read_text()))
    done = run(tree, **arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_failing_cell_leaves_the_old_output(tree):
    write(tree, "1", "raise OSError('no space left')")
    (tree / "results").mkdir()
    (tree / "results/tiny.ipynb").write_text("old")
    done = run(tree)
    assert done.returncode == 1 and "tiny.ipynb stopped in cell 2: OSError: no space left" in done.stderr
    assert "dvc checkout" in done.stderr and "git checkout" in done.stderr
    assert [file.name for file in (tree / "results").iterdir()] == ["tiny.ipynb"]
    assert (tree / "results/tiny.ipynb").read_text() == "old"
    assert (tree / "build/unfinished/tiny.ipynb").is_file()


def test_executed_notebook_has_the_parameters_and_is_the_same_every_time(tree):
    write(
        tree,
        "import os\nprint(profile, rate, os.getcwd() == os.path.realpath('.'), os.environ['OMP_NUM_THREADS'])",
        "import time\nfor part in 'ab':\n    print(part, flush=True)\n    time.sleep(0.3)",
        "import ipywidgets\nprint('strip')\nipywidgets.interact(lambda z: z, z=1)",
        "import pandas\npandas.DataFrame({'a': [1]}).style",
        "sorted({'x', 'y'}), list({'x', 'y', 'z'})",
    )
    texts = []
    for _ in range(2):
        done = run(tree, "-p", "profile", "cpu", "-p", "rate", "1")
        assert done.returncode == 0, done.stderr
        texts.append((tree / "results/tiny.ipynb").read_text())
    assert texts[0] == texts[1]
    cells = json.loads(texts[0])["cells"]
    assert cells[2]["outputs"][0]["text"] == ["cpu 1.0 True 1\n"]
    assert [output["text"] for output in cells[3]["outputs"]] == [["a\n", "b\n"]]
    assert [output.get("text") for output in cells[4]["outputs"]][0] == ["strip\n"]
    assert "widget" not in texts[0].replace("ipywidgets", "")


def test_what_a_kernel_tells_is_shown_by_the_runner_and_not_in_the_notebook(tree):
    source = (
        "import os\nfrom pathlib import Path\nfrom jepa.runs.progress import tell\n"
        "file = Path(os.environ['JEPA_PROGRESS'])"
    )
    told = "tell(file, stored=5, runs=[], train=[], measure=[])\nfile.is_file()"
    write(tree, source, told)
    done = run(tree)
    assert done.returncode == 0 and "tiny: 5 of 5 runs\n" in done.stderr
    cells = json.loads((tree / "results/tiny.ipynb").read_text())["cells"]
    assert [cell["outputs"] for cell in cells[:-1]] == [[], []] and "5 of 5" not in json.dumps(cells)
    assert cells[-1]["outputs"][0]["data"]["text/plain"] == ["True"]


def test_nothing_is_written_to_the_kernel_while_it_runs(tree):
    """Such a message sometimes hides the kernel's reply, and the run waits forever."""
    write(tree, "import ipywidgets\nwidget = ipywidgets.Output()\nwith widget:\n    print(1)", "widget.outputs")
    assert run(tree).returncode == 0
    cells = json.loads((tree / "results/tiny.ipynb").read_text())["cells"]
    assert cells[-1]["outputs"][0]["data"]["text/plain"] == ["()"]


def test_code_edited_during_the_run_is_an_error_and_a_comment_is_none(tree):
    (tree / "jepa").unlink()
    (tree / "jepa").symlink_to(tree / "package")
    (tree / "package").mkdir()
    for file in (ROOT / "jepa").iterdir():
        (tree / "package" / file.name).symlink_to(file)
    (tree / "package" / "edited.py").write_text("1")
    edit = "from pathlib import Path\nPath('jepa/edited.py').write_text"
    write(tree, f"{edit}('# a comment\\n1')")
    assert run(tree, "-p", "out", "one").returncode == 0
    write(tree, f"{edit}('2')")
    done = run(tree, "-p", "out", "two")
    assert done.returncode == 1 and "ran while edited.py changed" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("seconds", [0, 0.02, 0.1, 0.2, None])
@pytest.mark.parametrize("shell", [[], ["/bin/sh", "-c"], ["bash", "--noprofile", "--norc", "-c"]], ids=len)
def test_nothing_is_left_where_dvc_is_killed_while_the_runner_starts_or_runs(tree, shell, seconds):
    write(tree, "import time\nopen('runs', 'w')\ntime.sleep(60)")
    command = [sys.executable, "-m", "jepa.lab.run", "notebooks/tiny.ipynb", "results/tiny.ipynb"]
    command = [*shell, " ".join(command)] if shell else command
    dvc = f"import subprocess\nstarted = subprocess.Popen({command!r})\nprint(flush=True)\nstarted.wait()"
    commands_only = f"import os\nos.environ['DVC_STAGE'] = 'tiny'\n{dvc}"
    options = {"cwd": tree, "start_new_session": True, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    killed = subprocess.Popen([sys.executable, "-c", commands_only], **options)
    killed.stdout.readline()
    if seconds is None:  # until the kernel runs
        wait((tree / "runs").is_file)
    else:
        time.sleep(seconds)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    wait(lambda: not members(killed.pid) and not working_in(tree))
    assert not (tree / "results").exists()


def working_in(folder: Path) -> list[int]:
    """Return the living processes whose working directory is a folder; a kernel is none of the runner's session."""
    found = [int(link.parent.name) for link in Path("/proc").glob("[0-9]*/cwd") if str(folder) == _target(link)]
    return [pid for pid in found if alive(pid)]


def _target(link: Path) -> str | None:
    """Return where a link leads, None where it went away."""
    try:
        return os.readlink(link)
    except OSError:
        return None
