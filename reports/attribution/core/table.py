"""Pure: an answer as columns and rows, for files and screens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meterline.reports.attribution.answer import Answer, Line
from meterline.reports.attribution.core.period import Granularity
from meterline.reports.tabular import Column, Kind
from meterline.schemas.periods import Window, WindowKind

_MEASURES = (
    Column("requests", Kind.COUNT),
    Column("input_tokens", Kind.COUNT),
    Column("output_tokens", Kind.COUNT),
    Column("cache_read_tokens", Kind.COUNT),
    Column("cache_write_tokens", Kind.COUNT),
    Column("reasoning_tokens", Kind.COUNT),
    Column("unpriced", Kind.COUNT),
    Column("cost_usd", Kind.MONEY),
    Column("share_percent", Kind.PPM),
)
_PEAKS = (
    Column("peak_rpm", Kind.COUNT),
    Column("rpm_limit", Kind.COUNT),
    Column("peak_tpm", Kind.COUNT),
    Column("tpm_limit", Kind.COUNT),
)
_BUDGET = (
    Column("budget_usd", Kind.MONEY),
    Column("remaining_usd", Kind.MONEY),
    Column("used_percent", Kind.COUNT),
    Column("projected_end_usd", Kind.MONEY),
    Column("projected_exhaustion", Kind.TIME),
)
_KINDS = {
    Granularity.MONTH: WindowKind.MONTH,
    Granularity.DAY: WindowKind.DAY,
    Granularity.HOUR: WindowKind.HOUR,
}


def columns_of(answer: Answer) -> list[Column]:
    """The columns of an answer; peaks and budgets only where a row has one."""
    lines = answer.lines
    return [
        Column("period"),
        *(Column(str(axis)) for axis in answer.question.by),
        *_MEASURES,
        *(_PEAKS if any(line.peaks for line in lines) else ()),
        *(_BUDGET if any(line.budget for line in lines) else ()),
    ]


def rows_of(answer: Answer) -> Iterator[tuple[Any, ...]]:
    """One row per line, in the order of `columns_of`."""
    names = {column.name for column in columns_of(answer)}
    for line in answer.lines:
        row = (
            _window_name(answer, line),
            *line.group,
            line.requests,
            line.input_tokens,
            line.output_tokens,
            line.cache_read_tokens,
            line.cache_write_tokens,
            line.reasoning_tokens,
            line.unpriced,
            line.cost_nano_usd,
            line.share_ppm,
        )
        if "peak_rpm" in names:
            row += _peaks(line)
        if "budget_usd" in names:
            row += _budget(line)
        yield row


def _window_name(answer: Answer, line: Line) -> str:
    kind = _KINDS.get(answer.question.granularity)
    if kind is None:
        return answer.question.period.name
    return answer.question.calendar.period(Window(kind, line.start_ms, line.end_ms))


def _peaks(line: Line) -> tuple[int | None, ...]:
    limits = line.policy.limits if line.policy else None
    return (
        line.peaks.requests_per_minute if line.peaks else None,
        limits.requests_per_minute if limits else None,
        line.peaks.tokens_per_minute if line.peaks else None,
        limits.tokens_per_minute if limits else None,
    )


def _budget(line: Line) -> tuple[int | None, ...]:
    if line.budget is None:
        return (None,) * len(_BUDGET)
    _, budget, remaining, used, projected, exhausted = line.budget
    return (budget, remaining, used, projected, exhausted)
