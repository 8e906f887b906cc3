"""Back-test: what rules would have said of spend that is past. Pure; the engine is the worker's.

    spend before the start    -> what the engine knows at the start (history, month to date)
    slices of spend, in time  -> sums of minute, hour, day and month -> engine.step -> firings

A slice is what a scope spent in a minute (or one event). Within it no order is known: of
several thresholds crossed in one minute the highest fires, as in a worker that was a minute late.
Spend is as it was: what a throttle would have refused is counted, not taken away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from meterline.alerting.core import engine
from meterline.alerting.core.state import (
    Observation,
    PolicyChanged,
    PublishAlert,
    PublishThrottle,
    State,
    Tick,
)
from meterline.alerting.core.totals import SpendSum
from meterline.schemas.alert import Alert
from meterline.schemas.money import divide_half_even
from meterline.schemas.periods import HOUR_MS, Calendar, Window, WindowKind
from meterline.schemas.policy import RuleSet, ScopePolicy
from meterline.schemas.throttle import BreakerState, ThrottleCommand


class SpendSlice(NamedTuple):
    """What one scope spent in one minute, or with one event."""

    time_ms: int
    """The minute's start, or the event's time."""
    scope: str
    cost_nano_usd: int
    tokens: int


class BacktestAlert(NamedTuple):
    """An alert that would have been published, and when."""

    at_ms: int
    alert: Alert


class BacktestCommand(NamedTuple):
    """A change of a scope's throttle that would have been commanded."""

    at_ms: int
    command: ThrottleCommand


@dataclass(slots=True)
class _Sum:
    window: Window
    cost_nano_usd: int = 0
    tokens: int = 0


@dataclass(slots=True)
class Backtest:
    """One run; feed `take` slices in the order of time, then `finish`."""

    state: State
    calendar: Calendar
    alerts: list[BacktestAlert] = field(default_factory=list)
    commands: list[BacktestCommand] = field(default_factory=list)
    """Changes only: renewals of a lease are left out."""
    refused_nano_usd: dict[str, int] = field(default_factory=dict)
    """Per scope: of the spend after a throttle, the share that it would have refused. Scopes
    contain each other: these must not be added up over a department and its keys."""
    spent_nano_usd: dict[str, int] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Per scope (time, spent since the start), one point per slice, for a picture."""
    _sums: dict[tuple[str, WindowKind], _Sum] = field(default_factory=dict)
    _inforce: dict[str, ThrottleCommand] = field(default_factory=dict)

    def take(self, slices: Iterable[SpendSlice]) -> None:
        """Spend of one time, all scopes of it; later than what was taken before."""
        for each in slices:
            self._run_timers(each.time_ms)
            self._count(each)

    def finish(self, end_ms: int) -> None:
        """Time passes to the end: leases and periods end, alerts are resolved."""
        self._run_timers(end_ms)

    def _count(self, each: SpendSlice) -> None:
        spent = self.spent_nano_usd
        spent[each.scope] = spent.get(each.scope, 0) + each.cost_nano_usd
        self.curves.setdefault(each.scope, []).append((each.time_ms, spent[each.scope]))
        self._count_refused(each)
        for window in self.calendar.windows(each.time_ms):
            total = add(self._sums, window, each)
            observed = SpendSum(
                each.scope,
                window.kind,
                window.start_ms,
                window.end_ms,
                total.cost_nano_usd,
                total.tokens,
                (),
                each.time_ms,
            )
            self._step(observed, each.time_ms)

    def _count_refused(self, each: SpendSlice) -> None:
        command = self._inforce.get(each.scope)
        if command is None:
            return
        percent = 100 - _admitted_percent(command, self.state)
        refused = divide_half_even(each.cost_nano_usd * percent, 100)
        known = self.refused_nano_usd.get(each.scope, 0)
        self.refused_nano_usd[each.scope] = known + refused

    def _run_timers(self, until_ms: int) -> None:
        while (due_ms := engine.next_timer(self.state)) <= until_ms:
            self._step(Tick(complete=True), due_ms)

    def _step(self, observation: Observation, now_ms: int) -> None:
        self.state, effects = engine.step(self.state, observation, now_ms)
        for effect in effects:
            match effect:
                case PublishAlert(alert):
                    self.alerts.append(BacktestAlert(self.state.now_ms, alert))
                case PublishThrottle(command):
                    self._command(command)
                case _:
                    pass

    def _command(self, command: ThrottleCommand) -> None:
        before = self._inforce.get(command.scope)
        if command.state is BreakerState.CLOSED:
            self._inforce.pop(command.scope, None)
        else:
            self._inforce[command.scope] = command
        if before is None or before.state is not command.state:
            self.commands.append(BacktestCommand(self.state.now_ms, command))


def add(sums: dict[tuple[str, WindowKind], _Sum], window: Window, each: SpendSlice) -> _Sum:
    """Add a slice to the sum of one of its windows; a new window begins at zero."""
    total = sums.get((each.scope, window.kind))
    if total is None or total.window.start_ms != window.start_ms:
        total = sums[each.scope, window.kind] = _Sum(window)
    total.cost_nano_usd += each.cost_nano_usd
    total.tokens += each.tokens
    return total


def begin(
    rules: RuleSet,
    policies: Mapping[str, ScopePolicy],
    history: Iterable[SpendSlice],
    start_ms: int,
) -> Backtest:
    """An engine that knows the past.

    Args:
        rules: of all scopes.
        policies: the scopes' own, by scope.
        history: spend before `start_ms` in slices of at most an hour, in the order of time; from
            the month's start for budgets, and from some days back for rules of history.
        start_ms: when the run begins, at the start of an hour.
    """
    calendar = Calendar(rules.time_zone)
    state = engine.start(1, rules, start_ms)
    run = Backtest(state, calendar)
    known: dict[str, list[SpendSum]] = {}
    past: dict[tuple[str, WindowKind, int], SpendSum] = {}
    for each in history:
        for window in calendar.windows(each.time_ms)[1:]:
            total = add(run._sums, window, each)  # noqa: SLF001 - the same module
            past[each.scope, window.kind, window.start_ms] = SpendSum(
                each.scope,
                window.kind,
                window.start_ms,
                window.end_ms,
                total.cost_nano_usd,
                total.tokens,
            )
            state.alive.add(window.start_ms // HOUR_MS)
    for one in past.values():
        known.setdefault(one.scope, []).append(one)
    run._step(Tick(complete=True), start_ms)  # noqa: SLF001 - the same module
    for scope, policy in policies.items():
        observed = PolicyChanged(scope, policy, tuple(known.get(scope, ())))
        run._step(observed, start_ms)  # noqa: SLF001 - the same module
    return run


def _admitted_percent(command: ThrottleCommand, state: State) -> int:
    """The share of spend that a command lets through, where it is stated as a share."""
    if command.state is BreakerState.OPEN:
        return 0
    breaker = state.rules.breaker
    if command.state is BreakerState.HALF_OPEN:
        return breaker.half_open_to_percent
    return breaker.throttle_to_percent
