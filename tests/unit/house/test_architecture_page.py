"""The page that a newcomer reads first names files and functions that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
# `folder/file.ext`, `folder/`, `file.py:Class.method`; NAME stands for what a reader adds.
PLACES = sorted(
    {
        place
        for place in re.findall(r"`([\w./-]+/[\w.-]*(?::[\w.]+)?)`", PAGE)
        if "NAME" not in place and not place.startswith("/")
    }
)


def _defines(path: Path, name: str) -> bool:
    nodes: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    for part in name.split("."):
        nodes = [
            child
            for node in nodes
            for child in ast.iter_child_nodes(node)
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and child.name == part
        ]
    return bool(nodes)


def test_the_page_names_places() -> None:
    """The walk of an event and of a threshold is described by file names."""
    assert len(PLACES) > 60


@pytest.mark.parametrize("place", PLACES)
def test_a_place_on_the_page_exists(place: str) -> None:
    """Each file is there, and defines the function or class that is named with it."""
    file, _, name = place.partition(":")
    path = ROOT / file
    assert path.exists(), f"{file} is not there"
    if name:
        assert _defines(path, name), f"{file} does not define {name}"


REGISTRIES = re.findall(r"`([A-Z_]+)` of\s+`([\w/]+\.py)`", PAGE)


def test_the_page_names_every_registry() -> None:
    """Channels, rules, workers, measures and report columns each have one list to add a line to."""
    assert {name for name, _ in REGISTRIES} == {
        *{"_KINDS", "BUILT_IN", "WORKERS", "MEASURES", "DERIVED_COLUMNS"}
    }


@pytest.mark.parametrize(("name", "file"), REGISTRIES)
def test_a_registry_on_the_page_is_where_it_says(name: str, file: str) -> None:
    """The list is defined in the file that is named with it."""
    source = (ROOT / file).read_text("utf-8")
    assert re.search(rf"^{name}\b.*[=(]", source, re.MULTILINE)
