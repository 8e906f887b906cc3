"""The glossary is the list of words that are ours: each is used, and each stands there once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text("utf-8")
WORDS = re.findall(r"^\| (?!word \|)([^|]+?) \| ", GLOSSARY, re.MULTILINE)
ROOMS = [
    link.name
    for link in (ROOT / "src" / "meterline").iterdir()
    if link.is_dir() and not link.name.startswith("__")
]
CODE = "\n".join(
    path.read_text("utf-8").lower() for room in ROOMS for path in (ROOT / room).rglob("*.py")
)


def test_no_word_has_two_meanings() -> None:
    """A word stands in the glossary once."""
    assert len(WORDS) == len(set(WORDS))


@pytest.mark.parametrize("word", WORDS)
def test_a_word_of_the_glossary_is_used(word: str) -> None:
    """What the glossary explains occurs in the code, as a word or in a name."""
    pattern = r"[ _-]?".join(map(re.escape, word.lower().split()))
    assert re.search(pattern, CODE), f"{word!r} is explained and used nowhere"
