"""The product's errors have one root, and its drawing is true."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

import pytest

from meterline.embedded import errors as embedded_errors
from meterline.schemas import errors

ROOT = Path(__file__).resolve().parents[3]


class Found(TypedDict):
    """What the classes say."""

    meterline: str
    embedded: str
    strays: list[str]


@pytest.fixture(scope="module", name="found")
def fixture_found() -> Found:
    """The tree, drawn in a process that imports everything."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.error_tree"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    answer: Found = json.loads(done.stdout)
    return answer


def test_every_error_has_one_of_the_two_roots(found: Found) -> None:
    """Each class of an error is a MeterlineError; of the embedded servers, an EmbeddedError."""
    assert found["strays"] == []


def test_the_drawing_of_the_tree_is_true(found: Found) -> None:
    """The head of `schemas.errors` draws every public class below the root, and no other."""
    drawing = found["meterline"]
    assert drawing in inspect.cleandoc(errors.__doc__ or ""), f"draw it so:\n\n{drawing}\n"


def test_the_drawing_of_the_embedded_servers_errors_is_true(found: Found) -> None:
    """So does the head of `embedded.errors` below its own."""
    drawing = found["embedded"]
    assert drawing in inspect.cleandoc(embedded_errors.__doc__ or ""), f"draw it so:\n\n{drawing}\n"
