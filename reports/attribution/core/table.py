"""Pure: an answer as columns and rows, for files and screens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from meterline.reports.attribution.core.answer import Answer, AttributionLine
from meterline.reports.attribution.core.period import Granularity
from meterline.reports.core.tabular import ColumnKind, TableColumn
from meterline.schemas.measures import REPORT_COLUMNS, MeasureUnit, ReportColumn
from meterline.schemas.periods import Window, WindowKind

_KIND_OF = {
    MeasureUnit.NANO_USD: ColumnKind.MONEY,
    MeasureUnit.TOKENS: ColumnKind.COUNT,
    MeasureUnit.EVENTS: ColumnKind.COUNT,
}
_SHARE = TableColumn("share_percent", ColumnKind.PPM)
_PEAKS = (
    TableColumn("peak_rpm", ColumnKind.COUNT),
    TableColumn("rpm_limit", ColumnKind.COUNT),
    TableColumn("peak_tpm", ColumnKind.COUNT),
    TableColumn("tpm_limit", ColumnKind.COUNT),
)
_BUDGET = (
    TableColumn("budget_usd", ColumnKind.MONEY),
    TableColumn("remaining_usd", ColumnKind.MONEY),
    TableColumn("used_percent", ColumnKind.COUNT),
    TableColumn("projected_end_usd", ColumnKind.MONEY),
    TableColumn("projected_exhaustion", ColumnKind.TIME),
)
_KINDS = {
    Granularity.MONTH: WindowKind.MONTH,
    Granularity.DAY: WindowKind.DAY,
    Granularity.HOUR: WindowKind.HOUR,
}


def columns_of(
    answer: Answer, numbers: Sequence[ReportColumn] = REPORT_COLUMNS
) -> list[TableColumn]:
    """The columns of an answer; peaks and budgets only where a row has one."""
    lines = answer.lines
    return [
        TableColumn("period"),
        *(TableColumn(str(axis)) for axis in answer.question.by),
        *(TableColumn(each.heading, _KIND_OF[each.unit]) for each in numbers),
        _SHARE,
        *(_PEAKS if any(line.peaks for line in lines) else ()),
        *(_BUDGET if any(line.budget for line in lines) else ()),
    ]


def rows_of(
    answer: Answer, numbers: Sequence[ReportColumn] = REPORT_COLUMNS
) -> Iterator[tuple[Any, ...]]:
    """One row per line, in the order of `columns_of`."""
    names = {column.name for column in columns_of(answer)}
    for line in answer.lines:
        row = (
            _window_name(answer, line),
            *line.group,
            *(each.of(line.sums) for each in numbers),
            line.share_ppm,
        )
        if "peak_rpm" in names:
            row += _peaks(line)
        if "budget_usd" in names:
            row += _budget(line)
        yield row


def _window_name(answer: Answer, line: AttributionLine) -> str:
    kind = _KINDS.get(answer.question.granularity)
    if kind is None:
        return answer.question.period.name
    return answer.question.calendar.period(Window(kind, line.start_ms, line.end_ms))


def _peaks(line: AttributionLine) -> tuple[int | None, ...]:
    limits = line.policy.limits if line.policy else None
    return (
        line.peaks.requests_per_minute if line.peaks else None,
        limits.requests_per_minute if limits else None,
        line.peaks.tokens_per_minute if line.peaks else None,
        limits.tokens_per_minute if limits else None,
    )


def _budget(line: AttributionLine) -> tuple[int | None, ...]:
    if line.budget is None:
        return (None,) * len(_BUDGET)
    _, budget, remaining, used, projected, exhausted = line.budget
    return (budget, remaining, used, projected, exhausted)
