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
# A name's parts, of snake_case and of CamelCase; other marks stay, so that no term spans two of them.
PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\w\s-]")


def parts_of(text: str) -> str:
    """The words of a text and of its names, in lower case with a space on either side."""
    return f" {' '.join(map(str.lower, PARTS.findall(text)))} "


CODE = parts_of(
    "\n".join(path.read_text("utf-8") for room in ROOMS for path in (ROOT / room).rglob("*.py"))
)


def occurs(word: str, code: str) -> bool:
    """Whether whole words or whole parts of names are this term, in the singular or the plural."""
    return re.search(rf"{re.escape(parts_of(word).rstrip())}(s|es)? ", code) is not None


def test_no_word_has_two_meanings() -> None:
    """A word stands in the glossary once."""
    assert len(WORDS) == len(set(WORDS))


@pytest.mark.parametrize("word", WORDS)
def test_a_word_of_the_glossary_is_used(word: str) -> None:
    """What the glossary explains occurs in the code, as a word or in a name."""
    assert occurs(word, CODE), f"{word!r} is explained and used nowhere"


def test_a_part_of_a_word_is_not_the_word() -> None:
    """A term occurs as whole words or parts of names, and never inside a longer word."""
    for code in ("a lane", "lane_key", "LaneKey", "two lanes", "HTTPLane"):
        assert occurs("lane", parts_of(code))
    for code in ("a plane", "planes", "laneless", "control_plane", "desktop"):
        assert not occurs("lane", parts_of(code))
    for code in ("a dead letter", "dead_letters", "DeadLetterRow", "dead-letter"):
        assert occurs("dead letter", parts_of(code))
    assert not occurs("dead letter", parts_of("it is dead. Letters follow"))
