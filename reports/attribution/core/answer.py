"""Pure: rows of an attribution query with shares, budgets and projections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from meterline.reports.attribution.core.period import Granularity
from meterline.reports.attribution.core.question import (
    Attribution,
    AttributionSource,
    Dimension,
)
from meterline.reports.attribution.core.sql import (
    StaleBucket,
    StaleRollup,
)
from meterline.schemas.measures import COST, REPORTED, Sums, read_sums
from meterline.schemas.money import NanoUsd, divide_half_even
from meterline.schemas.periods import WindowKind
from meterline.schemas.policy import ScopePolicy
from meterline.schemas.scopes import Scope, ScopeType

# A day of which more cells are stale is read from the events whole: shorter SQL, as fast.
STALE_CELLS_PER_DAY_MAX = 50
# More stale cells than this, and the roll-up is not worth reading; 300 KB of parameters.
STALE_CELLS_MAX = 2_000
STALE_DAYS_MAX = 40
PPM = 1_000_000


class Peaks(NamedTuple):
    """The busiest minute of a row's window."""

    requests_per_minute: int
    tokens_per_minute: int


class AttributionBudget(NamedTuple):
    """The budget of the row's window, and the projected cost."""

    scope: str
    budget_nano_usd: NanoUsd
    remaining_nano_usd: NanoUsd
    """Negative when overspent."""
    used_percent: int
    """Rounded down."""
    projected_end_nano_usd: NanoUsd
    """Cost at the window's end at the current rate; what was spent, for a past window."""
    exhausted_at_ms: int | None
    """When the budget is used up at the current rate; None if not within the window."""


@dataclass(frozen=True, slots=True)
class AttributionLine:
    """One row of an answer."""

    start_ms: int
    """Start of its window."""
    end_ms: int
    group: tuple[str, ...]
    """One value per axis of the question."""
    sums: Sums
    """Requests without a price count, but their cost is not in the sum."""
    share_ppm: int
    """Cost in parts per million of its window's, all rows counted, shown or not."""
    peaks: Peaks | None = None
    policy: ScopePolicy | None = None
    """Policy of the scope that the row is about, if it is about one."""
    budget: AttributionBudget | None = None

    @property
    def cost_nano_usd(self) -> NanoUsd:
        """What it cost."""
        return self.sums.cost_nano_usd


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows that answer a question, and the table that they come from."""

    question: Attribution
    source: AttributionSource
    """Where it came from."""
    lines: tuple[AttributionLine, ...]

    @property
    def cost_nano_usd(self) -> NanoUsd:
        """Sum of the lines."""
        return sum(line.cost_nano_usd for line in self.lines)


def stale_of(rows: Sequence[tuple[Any, ...]]) -> StaleRollup | None:
    """What to read from the events; None when that is nearly everything."""
    cells = [StaleBucket(*row) for row in rows]
    by_day = Counter(cell.day for cell in cells)
    days = {day for day, number in by_day.items() if number > STALE_CELLS_PER_DAY_MAX}
    single = [cell for cell in cells if cell.day not in days]
    if len(single) > STALE_CELLS_MAX or len(days) > STALE_DAYS_MAX:
        return None
    return StaleRollup(tuple(sorted(days)), tuple(single))


def line_of(row: tuple[Any, ...], axes: int, ends: Mapping[int, int]) -> AttributionLine:
    """A row of `build` as a line; `ends` has the end of each window by its start."""
    start_ms, *rest, window_cost_usd = row
    sums = read_sums(REPORTED, rest[axes:])
    window_cost = COST.read(window_cost_usd)
    return AttributionLine(
        start_ms,
        ends[start_ms],
        tuple(rest[:axes]),
        sums,
        divide_half_even(sums.cost_nano_usd * PPM, window_cost) if window_cost > 0 else 0,
    )


def with_policies(answer: Answer, policies: Sequence[ScopePolicy], now_ms: int) -> Answer:
    """The same answer with limits, budgets and projections of the rows that are one scope's.

    Args:
        answer: rows without.
        policies: every scope's.
        now_ms: now, UTC ms: how much of a window is over.
    """
    named = _Policies(policies)
    lines = []
    for line in answer.lines:
        policy = named.of(answer.question, line.group)
        if policy is not None:
            budget = _budget(answer.question, line, policy, now_ms)
            lines.append(replace(line, policy=policy, budget=budget))
        else:
            lines.append(line)
    return replace(answer, lines=tuple(lines))


_SCOPE_OF = {
    Dimension.DEPARTMENT: ScopeType.DEPARTMENT,
    Dimension.PROJECT: ScopeType.PROJECT,
    Dimension.USER: ScopeType.USER,
    Dimension.KEY: ScopeType.KEY,
}


class _Policies:
    """Policies by scope, and by type and id where only one organisation has such an id."""

    def __init__(self, policies: Sequence[ScopePolicy]) -> None:
        self._by_scope = {policy.scope: policy for policy in policies}

    def of(self, question: Attribution, group: tuple[str, ...]) -> ScopePolicy | None:
        values = {
            each.axis.dimension: each.values[0]
            for each in question.filters
            if len(each.values) == 1
        } | {axis.dimension: value for axis, value in zip(question.by, group, strict=True)}
        several = any(len(each.values) > 1 for each in question.filters)
        organisation = values.pop(Dimension.ORGANISATION, "")
        if several or len(values) > 1 or not values.keys() <= _SCOPE_OF.keys():
            return None
        if not values:
            return self._by_scope.get(str(Scope(ScopeType.ORGANISATION, organisation)))
        [(dimension, identifier)] = values.items()
        kind = _SCOPE_OF[dimension]
        if organisation:
            return self._by_scope.get(str(Scope(kind, organisation, identifier)))
        found = [
            policy
            for scope, policy in self._by_scope.items()
            if scope.startswith(f"{kind.value}:") and scope.partition("/")[2] == identifier
        ]
        return found[0] if len(found) == 1 else None


def _budget(
    question: Attribution, line: AttributionLine, policy: ScopePolicy, now_ms: int
) -> AttributionBudget | None:
    """The budget of a row whose window is one whole billing month or day."""
    if line.start_ms < question.period.start_ms or line.end_ms > question.period.end_ms:
        return None
    calendar = question.calendar
    amount: NanoUsd | None = None
    for kind, budget in (
        (WindowKind.MONTH, policy.budget.month_nano_usd),
        (WindowKind.DAY, policy.budget.day_nano_usd),
    ):
        window = calendar.window(kind, line.start_ms)
        if (window.start_ms, window.end_ms) == (line.start_ms, line.end_ms):
            amount = budget
    if amount is None or question.granularity is Granularity.HOUR:
        return None
    return project(line, amount, now_ms, policy.scope)


def project(
    line: AttributionLine, budget_nano_usd: NanoUsd, now_ms: int, scope: str
) -> AttributionBudget:
    """Linear projection of a window's cost from the part of the window that is over."""
    spent = line.cost_nano_usd
    elapsed_ms = min(now_ms, line.end_ms) - line.start_ms
    projected, exhausted_at_ms = spent, None
    if 0 < elapsed_ms < line.end_ms - line.start_ms:
        projected = divide_half_even(spent * (line.end_ms - line.start_ms), elapsed_ms)
        if 0 < spent <= budget_nano_usd < projected:
            exhausted_at_ms = line.start_ms + budget_nano_usd * elapsed_ms // spent
    return AttributionBudget(
        scope,
        budget_nano_usd,
        budget_nano_usd - spent,
        100 * spent // budget_nano_usd if budget_nano_usd else 100,
        projected,
        exhausted_at_ms,
    )
