"""Pure: an attribution question as a value, and which table answers it exactly.

    question = Attribution(period, calendar, by=(Axis(Dimension.DEPARTMENT), Axis(Dimension.MODEL)))
    sql, parameters = build(question)          reports.attribution.core.sql

Three sources, the cheapest that is exact for the question is taken:

    spend_windows   totals per scope and window, published by the streams; no model in it
    usage_days      rows per billing day, replaced whenever a late event or a retraction touched
                    their day; days that were touched since are read from the events
    usage_events    every event, under FINAL
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from typing_extensions import override

from meterline.reports.attribution.core.period import Granularity, ReportPeriod
from meterline.schemas.errors import MeterlineError
from meterline.schemas.periods import Calendar, Window, WindowKind
from meterline.schemas.scopes import ScopeType

# Starts of windows are bound as one array of 14 bytes each; a request is bounded at 1 MB.
WINDOWS_MAX = 4_000
# Analysts read the top of a list; a file of a million lines is still written in seconds.
ROWS_MAX = 1_000_000
AXES_MAX = 8
TAG_PREFIX = "tag:"


class QuestionError(MeterlineError, ValueError):
    """A question that cannot be answered; the message says what to change."""


class Dimension(StrEnum):
    """What spend may be grouped and filtered by."""

    ORGANISATION = "organisation"
    DEPARTMENT = "department"
    PROJECT = "project"
    KEY = "key"
    USER = "user"
    TEAM = "team"
    MODEL = "model"
    PROVIDER = "provider"
    ENVIRONMENT = "environment"
    TAG = "tag"


class Axis(NamedTuple):
    """One dimension; of a tag also its name."""

    dimension: Dimension
    tag: str = ""

    @override
    def __str__(self) -> str:
        """As written on the command line, and the column's name in files."""
        return f"{TAG_PREFIX}{self.tag}" if self.tag else self.dimension.value


def read_axis(text: str) -> Axis:
    """An axis as written: `department`, `tag:feature`.

    Raises:
        QuestionError: neither.
    """
    if text.startswith(TAG_PREFIX) and len(text) > len(TAG_PREFIX):
        return Axis(Dimension.TAG, text.removeprefix(TAG_PREFIX))
    named = [each.value for each in Dimension if each is not Dimension.TAG]
    if text not in named:
        message = f"cannot attribute by {text!r}: use {', '.join(named)} or tag:NAME"
        raise QuestionError(message)
    return Axis(Dimension(text))


class Filter(NamedTuple):
    """Only events whose value is one of these."""

    axis: Axis
    values: tuple[str, ...]


def read_filter(text: str) -> Filter:
    """A filter as written: `department=research,sales`; an empty value means none.

    Raises:
        QuestionError: no `=`, or no such axis.
    """
    name, equals, values = text.partition("=")
    if not equals:
        message = f"{text!r} is no filter: write NAME=VALUE or NAME=VALUE,VALUE"
        raise QuestionError(message)
    return Filter(read_axis(name), tuple(values.split(",")))


class AttributionSource(StrEnum):
    """Where an answer comes from."""

    SPEND_WINDOWS = "spend_windows"
    USAGE_DAYS = "usage_days"
    USAGE_EVENTS = "usage_events"


@dataclass(frozen=True, slots=True)
class Attribution:
    """Requests, tokens and cost of a period, by any combination of axes."""

    period: ReportPeriod
    calendar: Calendar
    by: tuple[Axis, ...] = ()
    granularity: Granularity = Granularity.TOTAL
    filters: tuple[Filter, ...] = ()
    limit: int = ROWS_MAX
    """Rows at most, the costliest of each window first."""
    source: AttributionSource | None = None
    """None for the cheapest exact one."""

    def __post_init__(self) -> None:
        """Refuse a question that cannot be answered.

        Raises:
            QuestionError: too many axes or rows, or a source that is not exact.
        """
        if len(set(self.by)) != len(self.by) or len(self.by) + len(self.filters) > AXES_MAX:
            message = f"at most {AXES_MAX} axes and filters, each axis once"
            raise QuestionError(message)
        if not 0 < self.limit <= ROWS_MAX:
            message = f"limit must be 1 to {ROWS_MAX:,}"
            raise QuestionError(message)
        if self.source not in (
            None,
            AttributionSource.USAGE_EVENTS,
        ) and self.source not in exact_sources(self):
            message = f"{self.source.value} does not answer this question exactly"
            raise QuestionError(message)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Every axis that is grouped or filtered by."""
        return (*self.by, *(each.axis for each in self.filters))

    @property
    def chosen(self) -> AttributionSource:
        """The source that is read."""
        return self.source or exact_sources(self)[0]


# By scope type of spend_windows: the dimensions that a row of it has.
_SCOPES: Sequence[tuple[ScopeType, frozenset[Dimension]]] = (
    (ScopeType.ORGANISATION, frozenset({Dimension.ORGANISATION})),
    (ScopeType.DEPARTMENT, frozenset({Dimension.ORGANISATION, Dimension.DEPARTMENT})),
    (ScopeType.KEY, frozenset({Dimension.ORGANISATION, Dimension.KEY})),
    (ScopeType.PROJECT, frozenset({Dimension.ORGANISATION, Dimension.PROJECT})),
    (ScopeType.USER, frozenset({Dimension.ORGANISATION, Dimension.USER})),
)
# An event without one of these is in no scope of the type, so sums over scopes would lack it.
_OPTIONAL = {ScopeType.PROJECT: Dimension.PROJECT, ScopeType.USER: Dimension.USER}
# The dimensions of usage_days, without and with the key and what hangs on it.
DEPARTMENT_GRAIN = frozenset(
    {Dimension.ORGANISATION, Dimension.DEPARTMENT, Dimension.MODEL, Dimension.PROVIDER}
)
KEY_GRAIN = DEPARTMENT_GRAIN | {Dimension.PROJECT, Dimension.KEY, Dimension.ENVIRONMENT}


def scope_type(question: Attribution) -> ScopeType | None:
    """The scope type of spend_windows whose rows answer the question exactly, if any does."""
    wanted = {axis.dimension for axis in question.axes}
    for kind, dimensions in _SCOPES:
        if not wanted <= dimensions:
            continue
        needed = _OPTIONAL.get(kind)
        if needed is None or any(
            each.axis.dimension is needed and all(each.values) for each in question.filters
        ):
            return kind
    return None


def exact_sources(question: Attribution) -> list[AttributionSource]:
    """Every source that answers the question exactly, the cheapest first."""
    found = []
    if scope_type(question) is not None:
        found.append(AttributionSource.SPEND_WINDOWS)
    wanted = {axis.dimension for axis in question.axes}
    if wanted <= KEY_GRAIN and question.granularity is not Granularity.HOUR:
        found.append(AttributionSource.USAGE_DAYS)
    return [*found, AttributionSource.USAGE_EVENTS]


_KINDS = {
    Granularity.MONTH: WindowKind.MONTH,
    Granularity.DAY: WindowKind.DAY,
    Granularity.HOUR: WindowKind.HOUR,
}


def windows_of(question: Attribution) -> list[Window]:
    """The windows that rows are cut by; for TOTAL the one that is the whole period.

    Raises:
        QuestionError: more than WINDOWS_MAX.
    """
    period = question.period
    kind = _KINDS.get(question.granularity)
    if kind is None:
        return [Window(WindowKind.DAY, period.start_ms, period.end_ms)]
    found: list[Window] = []
    at_ms = period.start_ms
    while at_ms < period.end_ms:
        window = question.calendar.window(kind, at_ms)
        found.append(window)
        at_ms = window.end_ms
        if len(found) > WINDOWS_MAX:
            message = (
                f"more than {WINDOWS_MAX:,} windows: choose a shorter period or coarser windows"
            )
            raise QuestionError(message)
    return found


def rollup_kind(question: Attribution) -> WindowKind:
    """The coarsest windows of spend_windows that tile both the period and every row's window."""
    if question.granularity in _KINDS and question.granularity is not Granularity.MONTH:
        return _KINDS[question.granularity]
    period, calendar = question.period, question.calendar
    first = calendar.window(WindowKind.MONTH, period.start_ms)
    last = calendar.window(WindowKind.MONTH, period.end_ms - 1)
    whole = first.start_ms == period.start_ms and last.end_ms == period.end_ms
    return WindowKind.MONTH if whole else WindowKind.DAY
