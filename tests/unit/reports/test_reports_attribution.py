"""Attribution questions as values, and what is made of an answer."""

from __future__ import annotations

import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterline.reports.attribution.core.answer import (
    Answer,
    AttributionLine,
    project,
    stale_of,
    with_policies,
)
from meterline.reports.attribution.core.period import (
    Granularity,
    ReportPeriod,
    ReportPeriodError,
    read_period,
)
from meterline.reports.attribution.core.question import (
    Attribution,
    AttributionSource,
    QuestionError,
    exact_sources,
    read_axis,
    read_filter,
)
from meterline.reports.attribution.core.sql import (
    StaleBucket,
    StaleRollup,
    build,
    build_peaks,
    build_stale,
)
from meterline.schemas.measures import Sums
from meterline.schemas.periods import DAY_MS, HOUR_MS, Calendar, WindowKind, rfc3339
from meterline.schemas.policy import Budget, Limits, ScopePolicy

BERLIN = Calendar("Europe/Berlin")
UTC = Calendar()
NOW_MS = 1_793_000_000_000  # 2026-10-26T07:33:20Z
OCTOBER = read_period("2026-10", UTC, NOW_MS)


def asked(by: str, *where: str, granularity: Granularity = Granularity.TOTAL) -> Attribution:
    return Attribution(
        OCTOBER,
        UTC,
        tuple(read_axis(each) for each in by.split(",") if each),
        granularity,
        tuple(read_filter(each) for each in where),
    )


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("current_month", "2026-09-30T22:00:00.000Z", "2026-10-31T23:00:00.000Z"),
        ("previous_month", "2026-08-31T22:00:00.000Z", "2026-09-30T22:00:00.000Z"),
        ("2026-10", "2026-09-30T22:00:00.000Z", "2026-10-31T23:00:00.000Z"),
        ("1d", "2026-10-25T23:00:00.000Z", "2026-10-26T23:00:00.000Z"),
        ("7d", "2026-10-19T22:00:00.000Z", "2026-10-26T23:00:00.000Z"),
        ("2026-10-25", "2026-10-24T22:00:00.000Z", "2026-10-25T23:00:00.000Z"),
        ("2026-10-01..2026-10-02", "2026-09-30T22:00:00.000Z", "2026-10-02T22:00:00.000Z"),
        ("all", "2019-12-31T23:00:00.000Z", "2026-10-31T23:00:00.000Z"),
    ],
)
def test_periods_are_whole_billing_days(text: str, start: str, end: str) -> None:
    """Periods begin and end at midnight of the billing time zone, over the change of clocks too."""
    period = read_period(text, BERLIN, NOW_MS)
    assert (rfc3339(period.start_ms), rfc3339(period.end_ms)) == (start, end)


@pytest.mark.parametrize(
    "text", ["", "0d", "2026-13", "2026-02-30", "2026-10-02..2026-10-01", "last week", "99999-01"]
)
def test_other_words_are_no_period(text: str) -> None:
    """What is no period is refused with what one may write."""
    with pytest.raises(ReportPeriodError, match="write current_month"):
        read_period(text, UTC, NOW_MS)


@pytest.mark.parametrize(
    ("question", "source"),
    [
        (asked(""), AttributionSource.SPEND_WINDOWS),
        (asked("department"), AttributionSource.SPEND_WINDOWS),
        (asked("organisation,key", "key=k-1"), AttributionSource.SPEND_WINDOWS),
        (asked("department,model"), AttributionSource.USAGE_DAYS),
        (asked("department", "key=k-1"), AttributionSource.USAGE_DAYS),
        # Events without a project are in no project's scope: a sum over scopes would lack them.
        (asked("project"), AttributionSource.USAGE_DAYS),
        (asked("project", "project=bot"), AttributionSource.SPEND_WINDOWS),
        (asked("project", "project=bot,"), AttributionSource.USAGE_DAYS),
        (asked("user"), AttributionSource.USAGE_EVENTS),
        (asked("user", "user=ana"), AttributionSource.SPEND_WINDOWS),
        (asked("department,model", granularity=Granularity.HOUR), AttributionSource.USAGE_EVENTS),
        (asked("tag:feature"), AttributionSource.USAGE_EVENTS),
        (asked("team"), AttributionSource.USAGE_EVENTS),
    ],
)
def test_cheapest_exact_source_is_chosen(question: Attribution, source: AttributionSource) -> None:
    """A roll-up answers only what it holds every event of."""
    assert question.chosen is source


def test_inexact_source_is_refused() -> None:
    """A roll-up that lacks a dimension cannot be forced to answer."""
    with pytest.raises(QuestionError, match="does not answer this question exactly"):
        Attribution(OCTOBER, UTC, (read_axis("model"),), source=AttributionSource.SPEND_WINDOWS)


@pytest.mark.parametrize("text", ["", "cost", "tag:", "tag", "department "])
def test_unknown_axes_are_refused(text: str) -> None:
    """An axis that does not exist is refused with those that do."""
    with pytest.raises(QuestionError, match="cannot attribute by"):
        read_axis(text)


NASTY = "x' OR 1=1 --"


@pytest.mark.parametrize("source", AttributionSource)
def test_values_stay_out_of_the_text(source: AttributionSource) -> None:
    """No value of a filter, tag or stale cell stands in SQL, and every place has its parameter."""
    where = (
        ["organisation=" + NASTY]
        if source is AttributionSource.SPEND_WINDOWS
        else ["model=" + NASTY]
    )
    by = {
        AttributionSource.SPEND_WINDOWS: "organisation",
        AttributionSource.USAGE_DAYS: "key,model",
        AttributionSource.USAGE_EVENTS: "tag:" + NASTY,
    }[source]
    question = asked(by, *where, granularity=Granularity.DAY)
    assert source in exact_sources(question)
    stale = StaleRollup((date(2026, 10, 1),), (StaleBucket(NASTY, NASTY, date(2026, 10, 2)),))
    for sql, parameters in (
        build(question, stale),
        build_peaks(question),
        build_stale(question),
    ):
        assert "OR 1=1" not in sql
        assert set(re.findall(r"\{(\w+):", sql)) <= parameters.keys()
        for table in ("usage_events", "spend_windows", "usage_day_cells"):
            assert sql.count(f"FROM {table}") == sql.count(f"FROM {table} FINAL")


def test_too_many_windows_are_refused() -> None:
    """Hours of all time are no report."""
    period = read_period("all", UTC, NOW_MS)
    with pytest.raises(QuestionError, match="choose a shorter period"):
        build(Attribution(period, UTC, granularity=Granularity.HOUR))


def test_stale_days_are_read_whole() -> None:
    """Many stale cells of one day become the day; a few stay cells; too many mean all events."""
    busy = [("acme", f"d{number}", date(2026, 10, 1)) for number in range(51)]
    few = [("acme", "d", date(2026, 10, 2))]
    assert stale_of([*busy, *few]) == StaleRollup((date(2026, 10, 1),), (StaleBucket(*few[0]),))
    many = [("acme", "d", date.fromordinal(740_000 + number)) for number in range(2_001)]
    assert stale_of(many) is None


def line(
    cost: int, start_ms: int = OCTOBER.start_ms, end_ms: int = OCTOBER.end_ms
) -> AttributionLine:
    return AttributionLine(start_ms, end_ms, ("research",), Sums(cost, events=1), 0)


def test_projection_is_linear() -> None:
    """A third of the window over, a third of the budget and a half spent: where that leads."""
    start_ms, end_ms = 0, 30 * DAY_MS
    found = project(line(500, start_ms, end_ms), 1_000, 10 * DAY_MS, "s")
    assert (found.remaining_nano_usd, found.used_percent) == (500, 50)
    assert found.projected_end_nano_usd == 1_500
    assert found.exhausted_at_ms == 20 * DAY_MS


@given(
    spent=st.integers(0, 10**15),
    budget=st.integers(0, 10**15),
    now_ms=st.integers(-HOUR_MS, 32 * DAY_MS),
)
def test_projection_keeps_its_bounds(spent: int, budget: int, now_ms: int) -> None:
    """Remaining and spent make the budget; exhaustion lies in the future and inside the window."""
    found = project(line(spent, 0, 30 * DAY_MS), budget, now_ms, "s")
    assert found.remaining_nano_usd + spent == budget
    assert found.projected_end_nano_usd >= spent
    if found.exhausted_at_ms is not None:
        assert now_ms <= found.exhausted_at_ms < 30 * DAY_MS
        assert spent <= budget < found.projected_end_nano_usd


def test_budgets_come_with_their_scope() -> None:
    """A row about one scope gets its policy; by the id alone only where one organisation has it."""
    policy = ScopePolicy(
        scope="department:acme/research",
        budget=Budget(month_nano_usd=1_000),
        limits=Limits(requests_per_minute=5),
    )
    other = policy.model_copy(update={"scope": "department:zeta/research"})
    answer = Answer(asked("department"), AttributionSource.SPEND_WINDOWS, (line(100),))
    [found] = with_policies(answer, [policy], NOW_MS).lines
    assert found.budget is not None
    assert found.budget.remaining_nano_usd == 900
    [ambiguous] = with_policies(answer, [policy, other], NOW_MS).lines
    assert ambiguous.budget is None
    named = Answer(
        asked("department", "organisation=zeta"), AttributionSource.SPEND_WINDOWS, (line(100),)
    )
    [chosen] = with_policies(named, [policy, other], NOW_MS).lines
    assert chosen.policy == other
    by_model = Answer(asked("model"), AttributionSource.USAGE_DAYS, (line(100),))
    assert with_policies(by_model, [policy], NOW_MS).lines[0].policy is None


def test_part_of_a_month_has_no_month_budget() -> None:
    """A budget belongs to its whole period: a week's rows are not judged by the month's."""
    policy = ScopePolicy(scope="department:acme/research", budget=Budget(month_nano_usd=1_000))
    week = ReportPeriod("7d", OCTOBER.end_ms - 7 * DAY_MS, OCTOBER.end_ms)
    question = Attribution(week, UTC, (read_axis("department"),), Granularity.MONTH)
    month = UTC.window(WindowKind.MONTH, NOW_MS)
    answer = Answer(
        question, AttributionSource.SPEND_WINDOWS, (line(1, month.start_ms, month.end_ms),)
    )
    assert with_policies(answer, [policy], NOW_MS).lines[0].budget is None
