"""The package's own page names what is public, says what it is, and costs nothing to import."""

from __future__ import annotations

import re
import subprocess
import sys

import jepa


def test_every_public_name_is_there_and_stands_in_the_manual_with_a_sentence():
    listed = dict(re.findall(r"^(\w+) {2,}([A-Z(].*\.)$", jepa.__doc__, re.MULTILINE))
    assert [*listed] == jepa.__all__ and set(jepa.__all__) <= set(dir(jepa))
    assert all(callable(getattr(jepa, name)) or name in ("Step", "Cost", "Objective") for name in jepa.__all__)


def test_importing_the_package_imports_nothing_slow():
    code = "import sys, jepa; print([n for n in ('torch', 'numpy', 'pandas') if n in sys.modules])"
    code += "; jepa.JEPA; jepa.nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n" and "module 'jepa' has no attribute 'nothing'" in done.stderr
