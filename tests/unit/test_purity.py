"""A docstring that says "pure" is held to it: its module is in the contract that forbids I/O."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = PROJECT["tool"]["vulture"]["paths"]
"""The product: every folder that is installed."""
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
CLAIM = re.compile(r"\bpure(ly)?\b", re.IGNORECASE)


def _covered() -> re.Pattern[str]:
    """The modules of the contract "pure", its wildcards as import-linter reads them."""
    (contract,) = (
        each for each in PROJECT["tool"]["importlinter"]["contracts"] if each["id"] == "pure"
    )
    names = [
        re.escape(name).replace(r"\*\*", r"[\w.]+").replace(r"\*", r"\w+")
        for name in contract["source_modules"]
    ]
    return re.compile("|".join(names))


COVERED = _covered()


def module_name(path: Path) -> str:
    """`schemas/money.py` is `meterline.schemas.money`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("meterline", *parts)).removesuffix(".__init__")


def claims(path: Path) -> list[str]:
    """What of a module says that it is pure: the module itself, classes and functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and CLAIM.search(text):
                found.append(getattr(node, "name", "the module"))
    return found


def is_covered(path: Path) -> bool:
    """Whether the contract has this module; a package's own docstring speaks of its modules."""
    name = module_name(path)
    inside = f"{name}.a_module" if path.name == "__init__.py" else name
    return COVERED.fullmatch(inside) is not None


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_what_claims_to_be_pure_is_in_the_contract(path: Path) -> None:
    """No docstring says "pure" of code that may import a driver, a clock or a socket."""
    if not is_covered(path):
        assert claims(path) == []


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name == "__init__.py"])
def test_a_package_of_pure_modules_imports_nothing_itself(path: Path) -> None:
    """The wildcards skip a package's own `__init__`, so it must stay without imports."""
    if is_covered(path):
        nodes = ast.walk(ast.parse(path.read_text()))
        assert not [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def test_the_contract_covers_what_it_says() -> None:
    """The wildcards reach the folders of decisions, and not the shells beside them."""
    names = {module_name(path) for path in SOURCES if is_covered(path)}
    assert {"meterline.streams.core.ledger", "meterline.schemas.money"} <= names
    assert not names & {"meterline.streams.flusher", "meterline.sinks.writer"}
