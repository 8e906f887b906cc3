"""The command line imports only what it runs, and still lists every command."""

from __future__ import annotations

import subprocess
import sys

import typer
from typer.testing import CliRunner

from meterline.app.cli import COMMANDS, cli
from meterline.app.errors import explain
from meterline.schemas.errors import UserError

HEAVY = ("kafka", "aiokafka", "faust", "clickhouse_connect", "httpx", "pyarrow", "matplotlib")


def test_a_start_loads_no_driver() -> None:
    """What takes a second of processor time in every process is left to those that need it."""
    script = (
        f"import sys, meterline.app.cli; print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout == "[]\n"


def test_help_lists_every_command_under_its_heading() -> None:
    """Commands that are loaded on demand are shown with their help texts."""
    shown = CliRunner().invoke(cli, ["--help"]).stdout
    for name, command in COMMANDS.items():
        assert f"│ {name} " in shown
        assert command.panel in shown


def test_sub_commands_are_found_on_demand() -> None:
    """A group with commands of other modules lists and runs them."""
    for group, name in (("alerts", "backtest"), ("alerts", "route"), ("report", "whatif")):
        assert f"│ {name} " in CliRunner().invoke(cli, [group, "--help"]).stdout
        assert CliRunner().invoke(cli, [group, name, "--help"]).exit_code == 0


def test_an_unknown_command_is_refused() -> None:
    """A misspelt command ends with usage, not with a traceback."""
    done = CliRunner().invoke(cli, ["no-such"])
    assert done.exit_code == 2
    assert "No such command" in done.output


def test_the_version_is_shown() -> None:
    """`meterline --version` says which version runs."""
    assert CliRunner().invoke(cli, ["--version"]).stdout.startswith("meterline ")


def test_a_failure_is_a_line_and_a_defect_is_none() -> None:
    """What an operator can correct is explained; anything else keeps its traceback."""
    assert explain(UserError("do this")) == "do this"
    assert explain(ZeroDivisionError()) is None
    assert explain(typer.Exit(0)) is None
