"""Where a statement's text ends and its data begins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterline.embedded.core.statements import StatementKind, parse_statement


@pytest.mark.parametrize(
    ("source", "sql", "format_name", "data"),
    [
        (b"INSERT INTO t FORMAT Native\n\x01\x02", "INSERT INTO t", "Native", b"\x01\x02"),
        (b"insert into t (a, b) format TSV 1\t2\n", "insert into t (a, b)", "TSV", b"1\t2\n"),
        (b"INSERT INTO `FORMAT x` FORMAT CSV\r\n1", "INSERT INTO `FORMAT x`", "CSV", b"1"),
        (b"INSERT INTO t /* FORMAT CSV */ FORMAT TSV\n1", None, "TSV", b"1"),
        (b"-- FORMAT CSV\nINSERT INTO t FORMAT TSV\n1", None, "TSV", b"1"),
        (
            b"INSERT INTO t (format) SETTINGS a = ' FORMAT CSV' FORMAT TSV\n1",
            "INSERT INTO t (format)",
            "TSV",
            b"1",
        ),
        (b"INSERT INTO FUNCTION file('x', 'TSV') FORMAT TSV\n\n1", None, "TSV", b"\n1"),
        (b"INSERT INTO t FORMAT TSV", "INSERT INTO t", "TSV", b""),
    ],
)
def test_data_of_an_insert_begins_after_its_format(
    source: bytes, sql: str | None, format_name: str, data: bytes
) -> None:
    """Strings, quoted names, comments and parentheses hide no FORMAT and make none."""
    statement = parse_statement(source)
    assert statement.kind is StatementKind.INSERT_DATA
    assert statement.format_name == format_name
    assert source[statement.data_offset :] == data
    if sql is not None:
        assert statement.sql == sql


def test_settings_of_an_insert_are_kept_apart() -> None:
    """The SETTINGS clause is known by itself: INFILE goes before it."""
    statement = parse_statement(b"INSERT INTO t (a) SETTINGS x = ' FORMAT ', y = 1 FORMAT TSV\n")
    assert (statement.sql, statement.settings) == (
        "INSERT INTO t (a)",
        "SETTINGS x = ' FORMAT ', y = 1",
    )


@pytest.mark.parametrize(
    "source",
    [
        b"INSERT INTO t VALUES (1, 'FORMAT CSV')",
        b"INSERT INTO t (a) SELECT 1 FORMAT Null",
        b"INSERT INTO t WITH x AS (SELECT 1) SELECT * FROM x",
        b"INSERT INTO t FROM INFILE 'x' FORMAT CSV",
        b"CREATE TABLE t (id UInt64) ENGINE = Memory",
        b"SET max_threads = 1",
    ],
)
def test_commands_are_passed_whole(source: bytes) -> None:
    """A statement without data after it is the engine's business, all of it."""
    statement = parse_statement(source)
    assert statement.kind is StatementKind.COMMAND
    assert statement.sql == source.decode()


@pytest.mark.parametrize(
    ("source", "format_name"),
    [
        (b"SELECT 1", None),
        (b"select 1 format JSON", "JSON"),
        (b"SELECT 1 FORMAT CSV;", "CSV"),
        (b"SELECT 1 FORMAT CSV SETTINGS max_threads = 1", "CSV"),
        (b"SELECT format FROM t", None),
        (b"SELECT 'a FORMAT JSON'", None),
        (b"/* x */ WITH 1 AS a SELECT a", None),
        (b"(SELECT 1) UNION ALL (SELECT 2)", None),
        (b"SHOW TABLES FORMAT TSV", "TSV"),
        (b"DESCRIBE TABLE t", None),
    ],
)
def test_reading_statements_name_their_format(source: bytes, format_name: str | None) -> None:
    """A statement that answers rows is known as one, with the format in its text."""
    statement = parse_statement(source)
    assert statement.kind is StatementKind.RESULT
    assert statement.format_name == format_name


@given(data=st.binary(max_size=200))
def test_any_bytes_may_follow_an_insert(data: bytes) -> None:
    """The data of an INSERT is never parsed, whatever it holds."""
    statement = parse_statement(b"INSERT INTO t (a) FORMAT RowBinary\n" + data)
    assert statement.data_offset == len(b"INSERT INTO t (a) FORMAT RowBinary\n")


@given(source=st.binary(max_size=200))
def test_any_bytes_are_a_statement_or_no_text(source: bytes) -> None:
    """Parsing ends for every input: a statement, or an error that says it is not UTF-8."""
    try:
        parse_statement(source)
    except UnicodeDecodeError:
        with pytest.raises(UnicodeDecodeError):
            source.decode()
