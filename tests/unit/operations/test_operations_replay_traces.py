"""Trace files: what is read, and what is refused with its line."""

from __future__ import annotations

import json
import statistics
from itertools import pairwise
from pathlib import Path

import pytest

from meterline.operations.replay.options import ReplayError, ReplayOptions, TimeUnit, TraceFormat
from meterline.operations.replay.synthetic import DURATION_SECONDS, synthetic_trace
from meterline.operations.replay.traces import AZURE_COLUMNS, TraceRow, read_csv, read_jsonl
from meterline.schemas.periods import parse_rfc3339

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:46.6805900,374,44
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "trace"
    path.write_text(text, encoding="utf-8")
    return path


def test_azure_rows_in_the_order_of_time(tmp_path: Path) -> None:
    """Rows of the Azure trace are read as UTC ms and tokens, sorted by time."""
    rows = read_csv(write(tmp_path, AZURE), AZURE_COLUMNS, TimeUnit.ISO)
    first = parse_rfc3339("2023-11-16T18:15:46.680Z")
    assert rows == [TraceRow(first, 374, 44), TraceRow(first + 4_315, 396, 109)]


@pytest.mark.parametrize(
    ("unit", "text", "time_ms"),
    [
        (TimeUnit.SECONDS, "1700000000.25", 1_700_000_000_250),
        (TimeUnit.MILLISECONDS, "1700000000250", 1_700_000_000_250),
        (TimeUnit.ISO, "2023-11-14T22:13:20.25Z", 1_700_000_000_250),
        (TimeUnit.ISO, "2023-11-15 03:43:20.2500001+05:30", 1_700_000_000_250),
        (TimeUnit.ISO, "2023-11-14 22:13:20", 1_700_000_000_000),
    ],
)
def test_any_csv_by_columns_and_unit(
    tmp_path: Path, unit: TimeUnit, text: str, time_ms: int
) -> None:
    """Other traces are read by naming their columns and the unit of their times."""
    path = write(tmp_path, f"\ufeffid,when,prompt,answer\n1,{text},7,8\n")
    columns = {"time": "when", "input": "prompt", "output": "answer"}
    assert read_csv(path, columns, unit) == [TraceRow(time_ms, 7, 8)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "no column ContextTokens, GeneratedTokens, TIMESTAMP; the first line has a"),
        ("", "the first line has nothing"),
        (AZURE + "2023-11-16 18:15:51,many,1\n", "line 4: 'many' is not a number of tokens"),
        (AZURE + "yesterday,1,1\n", "line 4: 'yesterday' is not an ISO time"),
        (AZURE + "2023-11-16 18:15:51,-1,1\n", "line 4: -1 tokens"),
        (AZURE + "2023-11-16 18:15:51\n", "line 4: '' is not a number of tokens"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "no rows"),
    ],
)
def test_bad_csv_is_named(tmp_path: Path, text: str, says: str) -> None:
    """A wrong file is refused with the line and what is wrong with it."""
    with pytest.raises(ReplayError, match=says):
        read_csv(write(tmp_path, text), AZURE_COLUMNS, TimeUnit.ISO)


@pytest.mark.parametrize("text", ["inf", "nan", "x", ""])
def test_bad_numbers_of_time(tmp_path: Path, text: str) -> None:
    """A time that is no finite number is refused."""
    path = write(tmp_path, f"t,i,o\n{text},1,1\n")
    columns = {"time": "t", "input": "i", "output": "o"}
    with pytest.raises(ReplayError, match="line 2"):
        read_csv(path, columns, TimeUnit.SECONDS)


def test_missing_column_names(tmp_path: Path) -> None:
    """Columns that were not named are asked for."""
    with pytest.raises(ReplayError, match="--columns lacks input, output"):
        read_csv(write(tmp_path, AZURE), {"time": "TIMESTAMP"}, TimeUnit.ISO)


def test_limit_takes_the_first_rows(tmp_path: Path) -> None:
    """A limit bounds the rows that are read of the file."""
    rows = read_csv(write(tmp_path, AZURE), AZURE_COLUMNS, TimeUnit.ISO, limit=1)
    assert [row.input_tokens for row in rows] == [396]


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is a one-line error."""
    with pytest.raises(ReplayError, match="absent"):
        read_csv(tmp_path / "absent", AZURE_COLUMNS, TimeUnit.ISO)
    with pytest.raises(ReplayError, match="absent"):
        read_jsonl(tmp_path / "absent")


def test_jsonl_keeps_the_whole_event(tmp_path: Path) -> None:
    """A jsonl trace keeps what its events say; blank lines are skipped."""
    body = {
        "id": "a",
        "time_ms": 5,
        "organisation": "o",
        "key": "k",
        "model": "m",
        "input_tokens": 3,
        "department": "legal",
    }
    (row,) = read_jsonl(write(tmp_path, f"\n{json.dumps(body)}\n"))
    assert row.event is not None
    assert (row.time_ms, row.input_tokens, row.event.department) == (5, 3, "legal")


def test_bad_jsonl_is_named(tmp_path: Path) -> None:
    """A line that is no usage event is refused with its number."""
    with pytest.raises(ReplayError, match="line 1: not a usage event"):
        read_jsonl(write(tmp_path, '{"id": "a"}\n'))


def test_synthetic_trace_is_repeatable() -> None:
    """The same seed makes the same trace, another seed another."""
    assert synthetic_trace(3, 500) == synthetic_trace(3, 500)
    assert synthetic_trace(3, 500) != synthetic_trace(4, 500)


def test_synthetic_trace_looks_like_the_real_one() -> None:
    """Medians, means and length lie near those of the Azure trace (1,020/129, 1,155/211, 1 h)."""
    rows = synthetic_trace(7)
    prompts = [row.input_tokens for row in rows]
    answers = [row.output_tokens for row in rows]
    assert 800 < statistics.median(prompts) < 1_200
    assert 1_000 < statistics.mean(prompts) < 1_300
    assert 100 < statistics.median(answers) < 170
    assert 180 < statistics.mean(answers) < 240
    assert 0.9 < rows[-1].time_ms / (DURATION_SECONDS * 1000) < 1.1
    assert rows == sorted(rows, key=lambda row: row.time_ms)
    gaps = [after.time_ms - before.time_ms for before, after in pairwise(rows)]
    assert 1.0 < statistics.pstdev(gaps) / statistics.mean(gaps) < 1.3


def test_options_name_all_faults_at_once() -> None:
    """Impossible options are refused together, each by its name."""
    options = ReplayOptions(
        format=TraceFormat.AZURE,
        speed=-1,
        relays=0,
        keys=2,
        departments=3,
        duplicates=1.5,
        late=-0.1,
    )
    faults = options.faults()
    for name in ("--speed", "--relays", "--departments", "--duplicates", "--late", "trace file"):
        assert any(name in each for each in faults), name
    assert ReplayOptions(format=TraceFormat.SYNTHETIC).faults() == []
