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
CLAIM = re.compile(
    r"\bpure(ly)?\b|\b(no|without|any) I/O\b|never:? does I/O|\b(no|without a) clock\b"
    r"|never:? reads (a|the) clock|side[- ]effects?[- ]free|\b(no|without) side[- ]effects?\b",
    re.IGNORECASE,
)
CALLS = {"open", "print", "input", "read_text", "read_bytes", "write_text", "write_bytes"}
"""Calls that need no import, or only that of a value's class, to reach a file or a terminal."""
CLOCKS = {"now", "utcnow", "today", "uuid1", "uuid4"}
"""Methods of classes of which the rest is arithmetic."""


(CONTRACT,) = (
    each for each in PROJECT["tool"]["importlinter"]["contracts"] if each["id"] == "pure"
)


def _covered() -> re.Pattern[str]:
    """The modules of the contract "pure", its wildcards as import-linter reads them."""
    names = [
        re.escape(name).replace(r"\*\*", r"[\w.]+").replace(r"\*", r"\w+")
        for name in CONTRACT["source_modules"]
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


@pytest.mark.parametrize("path", [path for path in SOURCES if is_covered(path)], ids=module_name)
def test_a_pure_module_calls_no_file_and_no_clock(path: Path) -> None:
    """What no import shows is not called either: open(), print(), datetime.now()."""
    called = {
        ast.unparse(node.func).rpartition(".")[2]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    }
    assert not called & (CALLS | CLOCKS)


@pytest.mark.parametrize("path", [path for path in SOURCES if is_covered(path)], ids=module_name)
def test_a_pure_module_has_of_urllib_only_its_parser(path: Path) -> None:
    """The contract knows packages only, and `urllib.request` is a client beside `urllib.parse`."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            imported |= {node.module or "", *(f"{node.module}.{each.name}" for each in node.names)}
        elif isinstance(node, ast.Import):
            imported |= {each.name for each in node.names}
    urllib = {".".join(each.split(".")[:2]) for each in imported if each.startswith("urllib")}
    assert urllib <= {"urllib.parse"}


@pytest.mark.parametrize(
    "module",
    [
        *("os", "subprocess", "http", "threading", "sqlite3", "tempfile", "shutil"),
        *("structlog", "concurrent", "selectors", "multiprocessing", "aiohttp", "pathlib"),
        *("asyncio", "socket", "logging", "time", "random"),
    ],
)
def test_the_contract_forbids_every_way_out(module: str) -> None:
    """A file, a process, a thread, a peer, a log or a clock is out of a pure module's reach."""
    assert module in CONTRACT["forbidden_modules"]


def test_no_contract_has_an_exception() -> None:
    """import-linter is told of no import that it should overlook."""
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    assert not [each["id"] for each in contracts if "ignore_imports" in each]


def test_one_pure_module_draws_a_secret() -> None:
    """The key that hides personal data is drawn once a process, at import; nothing else is."""
    drawing = {
        module_name(path)
        for path in SOURCES
        if is_covered(path) and re.search(r"^import secrets", path.read_text(), re.MULTILINE)
    }
    assert drawing == {"meterline.sinks.core.personal_data"}


@pytest.mark.parametrize(
    "claim", ["Pure.", "does no I/O and reads no clock", "Never: does I/O", "without a clock"]
)
def test_a_claim_is_found_in_other_words(claim: str) -> None:
    """Purity is claimed by what a module does not do as well as by the word."""
    assert CLAIM.search(claim)
