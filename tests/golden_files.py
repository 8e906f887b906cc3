"""Files of expected output, and how they are written again after an intended change."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

DIRECTORY = Path(__file__).parent / "golden"
REWRITE_VARIABLE = "GOLDEN_REWRITE"
HINT = f"if the change is meant: {REWRITE_VARIABLE}=1 pytest tests/golden, and read the difference"


def assert_golden(name: str, text: str) -> None:
    """Compare with tests/golden/NAME; with GOLDEN_REWRITE=1 write it instead."""
    path = DIRECTORY / name
    if os.environ.get(REWRITE_VARIABLE) == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    expected = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text != expected:
        lines = difflib.unified_diff(
            expected.splitlines(), text.splitlines(), f"tests/golden/{name}", "now", lineterm=""
        )
        message = "\n".join([*lines, HINT])
        raise AssertionError(message)
