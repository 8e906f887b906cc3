"""Pure: what kind of SQL statement is this, and where does an INSERT's data begin?

ClickHouse's HTTP protocol sends an INSERT's data after its text, in the same byte stream, so the
end of the text must be found without parsing the data. A tokenizer that knows strings, quoted
names, comments and parentheses is enough: the text of an INSERT ends at the first VALUES, SELECT,
WITH, FROM or FORMAT outside all of them.
"""

import re
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
_INSERT_TEXT_ENDS = frozenset({b"VALUES", b"SELECT", b"WITH", b"FROM", b"WATCH", b"FORMAT"})
_RESULT_VERBS = frozenset(
    {b"SELECT", b"WITH", b"SHOW", b"DESC", b"DESCRIBE", b"EXISTS", b"EXPLAIN", b"CHECK", b"KILL"}
    | {b"FROM", b"VALUES"}
)
# What ClickHouse skips between the format's name and the data: blanks, then one line end.
_DATA_GAP = re.compile(rb"[ \t\f]*\r?\n?")


class StatementKind(Enum):
    """What a statement needs of the server."""

    RESULT = auto()
    """It answers rows."""
    COMMAND = auto()
    """It answers nothing: DDL, SET, INSERT with its rows in the text."""
    INSERT_DATA = auto()
    """Its rows follow in a named format."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement's kind and the parts that the server handles itself."""

    kind: StatementKind
    sql: str
    """The text for the engine; for INSERT_DATA without FORMAT clause and data."""
    format_name: str | None
    """The format that the text names."""
    data_offset: int
    """Where the data begins in the source bytes (INSERT_DATA only)."""


def parse_statement(source: bytes) -> Statement:
    """Find the kind of the statement at the start of `source`; UnicodeDecodeError if not text."""
    depth = 0
    verb = b""
    word = b""
    format_at: tuple[int, int, int] | None = None  # clause start, name start, name end
    for match in _TOKEN.finditer(source):
        kind = match.lastgroup
        if kind == "open":
            depth += 1
            verb = verb or b"SELECT"
        elif kind == "close":
            depth -= 1
        elif kind == "word" and depth == 0:
            previous, word = word, match[0].upper()
            verb = verb or word
            if previous == b"FORMAT":
                format_at = (format_start, match.start(), match.end())
                if verb == b"INSERT":
                    return _insert_with_data(source, format_at)
            elif word == b"FORMAT":
                format_start = match.start()
            elif verb == b"INSERT" and word in _INSERT_TEXT_ENDS:
                return Statement(StatementKind.COMMAND, source.decode(), None, len(source))
    name = source[format_at[1] : format_at[2]].decode() if format_at else None
    result = StatementKind.RESULT if verb in _RESULT_VERBS else StatementKind.COMMAND
    return Statement(result, source.decode(), name, len(source))


def _insert_with_data(source: bytes, format_at: tuple[int, int, int]) -> Statement:
    clause_start, name_start, name_end = format_at
    gap = _DATA_GAP.match(source, name_end)
    return Statement(
        StatementKind.INSERT_DATA,
        source[:clause_start].decode().rstrip(),
        source[name_start:name_end].decode(),
        gap.end() if gap else name_end,
    )
