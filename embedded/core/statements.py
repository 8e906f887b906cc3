"""Pure: what kind of SQL statement is this, and where does an INSERT's data begin?

ClickHouse's HTTP protocol sends an INSERT's data after its text, in the same byte stream, so the
end of the text must be found without parsing the data. A tokenizer that knows strings, quoted
names, comments and parentheses is enough: the text of an INSERT ends at the first VALUES, SELECT,
WITH, FROM or FORMAT outside all of them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

_TOKEN = re.compile(
    rb"""
      (?P<space>\s+ | --[^\n]*(?:\n|$) | \#[!\ ][^\n]*(?:\n|$) | /\*.*?\*/)
    | (?P<quoted>'(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | `(?:[^`\\]|\\.|``)*`)
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<open>[(\[{])
    | (?P<close>[)\]}])
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_INSERT_TEXT_ENDS = frozenset({b"VALUES", b"SELECT", b"WITH", b"FROM", b"WATCH"})
_RESULT_VERBS = frozenset(
    {b"SELECT", b"WITH", b"SHOW", b"DESC", b"DESCRIBE", b"EXISTS", b"EXPLAIN", b"CHECK", b"KILL"}
    | {b"FROM", b"VALUES"}
)
# At the end of a reading statement; the engine finds it by itself, here it is for the headers.
_FORMAT_CLAUSE = re.compile(
    rb"\bFORMAT\s+([A-Za-z_][A-Za-z0-9_]*)\s*(?:\sSETTINGS\s[^;]*)?;?\s*\Z", re.IGNORECASE
)
# What ClickHouse skips between the format's name and the data: blanks, then one line end.
_DATA_GAP = re.compile(rb"[ \t\f]*\r?\n?")


class StatementKind(Enum):
    """What a statement needs of the server."""

    RESULT = auto()
    """It answers rows."""
    COMMAND = auto()
    """It answers nothing: DDL, SET, INSERT with its rows in the text or from a SELECT."""
    INSERT_DATA = auto()
    """Its rows follow in a named format."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement's kind and the parts that the server handles itself."""

    kind: StatementKind
    sql: str
    """The text for the engine; for INSERT_DATA what comes before SETTINGS and FORMAT."""
    format_name: str | None
    """The format that the text names."""
    data_offset: int
    """Where the data begins in the source bytes (INSERT_DATA only)."""
    settings: str = ""
    """The text of the SETTINGS clause (INSERT_DATA only)."""


@dataclass(frozen=True, slots=True)
class _Word:
    """A word outside quotes, comments and parentheses."""

    text: bytes
    start: int
    end: int


def parse_statement(source: bytes) -> Statement:
    """Find the kind of the statement at the start of `source`; UnicodeDecodeError if not text."""
    words = _words(source)
    verb = next(words, None)
    if verb is not None and verb.text == b"INSERT":
        return _parse_insert(source, words)
    named = _FORMAT_CLAUSE.search(source)
    # Without a word first it is `(SELECT ...) UNION ...`, or an error that the engine words.
    answers = verb is None or verb.text in _RESULT_VERBS or source.lstrip().startswith(b"(")
    kind = StatementKind.RESULT if answers else StatementKind.COMMAND
    return Statement(kind, source.decode(), named[1].decode() if named else None, len(source))


def _parse_insert(source: bytes, words: Iterator[_Word]) -> Statement:
    settings_start: int | None = None
    for word in words:
        if word.text in _INSERT_TEXT_ENDS:
            break
        if word.text == b"SETTINGS" and settings_start is None:
            settings_start = word.start
        if word.text == b"FORMAT" and (name := next(words, None)) is not None:
            gap = _DATA_GAP.match(source, name.end)
            text_end = word.start if settings_start is None else settings_start
            return Statement(
                StatementKind.INSERT_DATA,
                source[:text_end].decode().rstrip(),
                source[name.start : name.end].decode(),
                gap.end() if gap else name.end,
                source[text_end : word.start].decode().rstrip(),
            )
    return Statement(StatementKind.COMMAND, source.decode(), None, len(source))


def _words(source: bytes) -> Iterator[_Word]:
    """The words at depth 0, upper-cased; lazy, so that an INSERT's data is never scanned."""
    depth = 0
    for match in _TOKEN.finditer(source):
        if match.lastgroup == "open":
            depth += 1
        elif match.lastgroup == "close":
            depth -= 1
        elif match.lastgroup == "word" and depth == 0:
            yield _Word(match[0].upper(), match.start(), match.end())
