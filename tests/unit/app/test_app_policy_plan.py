"""`meterline policy plan` as an operator and a script read it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from meterline.app.commands.policy import show_changes
from meterline.control.policy.plan import ChangeAction, FieldChange, PolicyChange

NAMES = (
    "research",
    "x" * 60,
    "研究開発本部・人工知能応用研究部門",
    "[/quoted] [link=https://a]b",
    "a\x1b[2J\nb",
)
FIELDS = (FieldChange("budget.month_usd", "50", "60"), FieldChange("name", "none", "[bold]R[/]"))


def printed(changes: tuple[PolicyChange, ...], width: int) -> list[str]:
    """The lines on a terminal or in a pipe of some width."""
    out = io.StringIO()
    show_changes(Console(file=out, width=width, highlight=False), changes)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [20, 80, 200])
@pytest.mark.parametrize("name", NAMES)
def test_each_change_is_one_line_whatever_its_names(name: str, width: int) -> None:
    """A change is found by grep with all that it changes, and no name folds or forges a line."""
    changes = tuple(
        PolicyChange(action, f"department:acme/{name}", None, None, FIELDS)
        for action in ChangeAction
    )
    *lines, last = printed(changes, width)
    assert last == "3 changes"
    assert len(lines) == 3
    shown = name.replace("\x1b", "\\x1b").replace("\n", "\\n")
    for sign, line in zip("+~-", lines, strict=True):
        assert line.startswith(f"{sign} department:acme/{shown}  budget.month_usd: ")
        assert line.endswith("[bold]R[/]")


def test_a_plan_without_changes_says_so() -> None:
    """Nothing to change is a line of its own."""
    assert printed((), 80) == ["nothing to change"]
