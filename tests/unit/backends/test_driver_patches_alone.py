"""Private parts of drivers are used in `_driver_patches` alone."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = sorted(path.name for path in (ROOT / "src" / "meterline").iterdir() if path.is_symlink())
DRIVERS = {
    "aiokafka",
    "aiosmtplib",
    "apscheduler",
    "chdb",
    "clickhouse_connect",
    "faust",
    "httpx",
    "httpx_secure",
    "kafka",
    "mode",
}
# What namedtuple calls so to keep it apart from the fields.
NAMEDTUPLE = {"_asdict", "_replace", "_make", "_fields", "_field_defaults"}
PATCHED = {
    "kafka-python": "3.0.12",
    "faust-streaming": "0.15.3",
    "aiokafka": "0.14.0",
    "clickhouse-connect": "1.12.0",
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the product."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def imported(tree: ast.Module) -> set[str]:
    """The top-level packages that a module imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def reached_into(tree: ast.Module) -> Iterator[str]:
    """Private attributes of anything but the object itself."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("_"):
            continue
        own = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls", "os"}
        parent = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "super"
        if not (own or parent or node.attr.startswith("__") or node.attr in NAMEDTUPLE):
            yield ast.unparse(node)


def test_no_other_module_that_imports_a_driver_reaches_into_anything() -> None:
    """A private attribute beside `self` stands in a `_driver_patches` only."""
    found = {
        name: reached
        for name, tree in modules()
        if imported(tree) & DRIVERS
        and not name.endswith("/_driver_patches.py")
        and (reached := sorted(set(reached_into(tree))))
    }
    assert not found


def test_the_linter_lets_no_other_file_reach_into_a_driver() -> None:
    """SLF001 is lifted for the patches and the tests, for nothing else."""
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    lifted = {files for files, rules in lint["per-file-ignores"].items() if "SLF001" in rules}
    assert lifted == {"tests/**", "**/_driver_patches.py"}
    assert "SLF001" not in lint["ignore"]


def test_each_patch_is_named_in_its_files_table() -> None:
    """The head of a `_driver_patches` names every public class and function of it, and no other."""
    files = [(name, tree) for name, tree in modules() if name.endswith("/_driver_patches.py")]
    assert len(files) == 3
    for name, tree in files:
        rows = [line for line in (ast.get_docstring(tree) or "").splitlines() if line[:2] == "| "]
        listed = {row.split("|")[1].strip() for row in rows} - {"patch", ""}
        defined = {
            node.name
            for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert listed == defined, name


def project() -> dict[str, Any]:
    """What the distribution says of itself."""
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def test_patched_drivers_are_pinned_to_releases_that_were_tried() -> None:
    """The next release that may change a private part is not installed by itself."""
    extras = project()["optional-dependencies"]
    declared = [Requirement(text) for extra in extras.values() for text in extra]
    for name, version in PATCHED.items():
        (found,) = (each for each in declared if each.name == name)
        assert found.specifier.contains(version), found
        tried = Version(version)
        beyond = f"{tried.major}.{tried.minor + 1}.0" if name != "clickhouse-connect" else "2.0.0"
        assert not found.specifier.contains(beyond), found


def test_each_dependency_stands_once_per_extra() -> None:
    """No extra names a distribution twice under two spellings."""
    found = project()
    for extra, texts in {"": found["dependencies"], **found["optional-dependencies"]}.items():
        names = [
            (requirement.name.lower().replace("_", "-"), frozenset(requirement.extras))
            for requirement in map(Requirement, texts)
        ]
        assert len(names) == len(set(names)), extra
