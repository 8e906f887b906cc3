"""Trace files to requests: time, tokens in, tokens out."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NamedTuple

import msgspec

from meterline.operations.replay.options import ReplayError, TimeUnit
from meterline.schemas.usage import UsageEvent

AZURE_COLUMNS: Mapping[str, str] = {
    "time": "TIMESTAMP",
    "input": "ContextTokens",
    "output": "GeneratedTokens",
}
ROWS_MAX = 5_000_000
"""A trace is held in memory, about 200 bytes a row: one gigabyte."""
TOKENS_MAX = 2**40
_LINE_BYTES_MAX = 1_000_000


class TraceRow(NamedTuple):
    """One request; `event` carries what a jsonl trace says beyond the three numbers."""

    time_ms: int
    input_tokens: int
    output_tokens: int
    event: UsageEvent | None = None


def read_csv(
    path: Path, columns: Mapping[str, str], time_unit: TimeUnit, limit: int = 0
) -> list[TraceRow]:
    """Read a CSV trace with a header, in the order of time.

    Args:
        path: the file.
        columns: `time`, `input`, `output` to its column names.
        time_unit: how its times are written.
        limit: maximum number of rows to read; 0 for all.

    Raises:
        ReplayError: unreadable, a column missing, or a row that is no request; names the line.
    """
    missing = sorted(AZURE_COLUMNS.keys() - columns.keys())
    if missing:
        message = f"--columns lacks {', '.join(missing)}: write time=NAME,input=NAME,output=NAME"
        raise ReplayError(message)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            absent = sorted(set(columns.values()) - set(reader.fieldnames or ()))
            if absent:
                found = ", ".join(reader.fieldnames or ()) or "nothing"
                message = f"{path}: no column {', '.join(absent)}; the first line has {found}"
                raise ReplayError(message)
            rows = _bounded(_csv_rows(path, reader, columns, time_unit), path, limit)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        message = f"{path}: {error}"
        raise ReplayError(message) from error
    return rows


def read_jsonl(path: Path, limit: int = 0) -> list[TraceRow]:
    """Read a trace of one usage event per line, in the order of time.

    Raises:
        ReplayError: unreadable, or a line that is no usage event; names the line.
    """
    try:
        with path.open("rb") as file:
            return _bounded(_jsonl_rows(path, file), path, limit)
    except OSError as error:
        message = f"{path}: {error}"
        raise ReplayError(message) from error


def _bounded(rows: Iterable[TraceRow], path: Path, limit: int) -> list[TraceRow]:
    taken: list[TraceRow] = []
    for row in rows:
        if len(taken) >= ROWS_MAX:
            message = f"{path}: more than {ROWS_MAX:,} rows; use --limit"
            raise ReplayError(message)
        taken.append(row)
        if len(taken) == limit:
            break
    if not taken:
        message = f"{path}: no rows"
        raise ReplayError(message)
    taken.sort(key=lambda row: row.time_ms)
    return taken


def _csv_rows(
    path: Path,
    reader: csv.DictReader[str],
    columns: Mapping[str, str],
    time_unit: TimeUnit,
) -> Iterator[TraceRow]:
    for record in reader:
        try:
            yield TraceRow(
                _time_ms(record[columns["time"]] or "", time_unit),
                _tokens(record[columns["input"]] or ""),
                _tokens(record[columns["output"]] or ""),
            )
        except ValueError as error:
            message = f"{path} line {reader.line_num}: {error}"
            raise ReplayError(message) from error


def _jsonl_rows(path: Path, lines: Iterable[bytes]) -> Iterator[TraceRow]:
    decoder = msgspec.json.Decoder(UsageEvent)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if len(line) > _LINE_BYTES_MAX:
            message = f"{path} line {number}: longer than {_LINE_BYTES_MAX:,} bytes"
            raise ReplayError(message)
        try:
            event = decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            message = f"{path} line {number}: not a usage event: {error}"
            raise ReplayError(message) from error
        yield TraceRow(event.time_ms, event.input_tokens, event.output_tokens, event)


def _tokens(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        message = f"{text!r} is not a number of tokens"
        raise ValueError(message) from None
    if not 0 <= count <= TOKENS_MAX:
        message = f"{count} tokens"
        raise ValueError(message)
    return count


def _time_ms(text: str, unit: TimeUnit) -> int:
    """UTC ms; an ISO time without an offset is UTC; finer digits than microseconds are cut."""
    if unit is TimeUnit.ISO:
        return _iso_ms(text)
    try:
        scaled = Decimal(text).scaleb(3 if unit is TimeUnit.SECONDS else 0)
        return int(scaled)
    except (InvalidOperation, OverflowError, ValueError):
        message = f"{text!r} is not a time in {unit.value}"
        raise ValueError(message) from None


def _iso_ms(text: str) -> int:
    head, dot, tail = text.strip().partition(".")
    digits = len(tail) - len(tail.lstrip("0123456789"))
    trimmed = f"{head}.{tail[:digits][:6]}{tail[digits:]}" if dot and digits else text.strip()
    try:
        moment = datetime.fromisoformat(trimmed)
    except ValueError:
        message = f"{text!r} is not an ISO time"
        raise ValueError(message) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)
