"""A back-test over stored spend, or over a file of events: sources, run and result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from meterline.alerting.core.backtest import Backtest, SpendSlice, begin
from meterline.backends.clickhouse.client import Client
from meterline.operations.chart import ChartData, ChartMarker
from meterline.operations.policy import compile_policy, read_policy_file
from meterline.pricing.catalogue import Catalogue
from meterline.reports.core.spend_slices import SliceQuery
from meterline.reports.spend_slices import read_spend_slices
from meterline.schemas.alert import AlertStatus
from meterline.schemas.codec import decode_usage
from meterline.schemas.errors import UserError
from meterline.schemas.money import NANO_PER_USD, usd_text
from meterline.schemas.periods import DAY_MS, Calendar, WindowKind, rfc3339
from meterline.schemas.policy import RULES_ID, PolicyObject, RuleSet, ScopePolicy
from meterline.schemas.scopes import scopes_of
from meterline.schemas.throttle import BreakerState
from meterline.schemas.usage import FUTURE_TOLERANCE_MS

HISTORY_MS = 11 * DAY_MS
"""History-based rules read at most ten days of history; a day more covers the day's start."""
EVENTS_MAX = 1_000_000
"""A test file is written by hand or cut from a log; more belongs into a back-test."""


@dataclass(frozen=True, slots=True)
class RulesFile:
    """The rules and policies of a policy file."""

    rules: RuleSet
    policies: Mapping[str, ScopePolicy]


def read_rules(path: Path) -> RulesFile:
    """Read and check a policy file; PolicyFileError with every fault."""
    objects: Mapping[str, PolicyObject] = compile_policy(read_policy_file(path))
    rules = objects[RULES_ID]
    policies = {name: item for name, item in objects.items() if isinstance(item, ScopePolicy)}
    if not policies or not isinstance(rules, RuleSet):
        message = f"{path}: names no scope, so no rule has anything to evaluate"
        raise UserError(message)
    return RulesFile(rules, policies)


def run_stored(
    client: Client, given: RulesFile, start_ms: int, end_ms: int, *, from_events: bool = False
) -> Backtest:
    """Run rules over stored spend in `[start_ms, end_ms)`; the start goes down to its hour.

    Raises:
        ClickHouseError: the store does not answer, or refuses.
    """
    calendar = Calendar(given.rules.time_zone)
    start_ms = calendar.window(WindowKind.HOUR, start_ms).start_ms
    month = calendar.window(WindowKind.MONTH, start_ms)
    first_ms = min(month.start_ms, start_ms - HISTORY_MS)
    scopes = tuple(given.policies)
    history = SliceQuery(scopes, first_ms, start_ms, hourly=True, from_events=from_events)
    run = begin(given.rules, given.policies, _slices(client, history), start_ms)
    question = SliceQuery(scopes, start_ms, end_ms, from_events=from_events)
    run.take(_slices(client, question))
    run.finish(end_ms)
    return run


def _slices(client: Client, question: SliceQuery) -> Iterator[SpendSlice]:
    return (SpendSlice(*each) for each in read_spend_slices(client, question))


def run_file(path: Path, given: RulesFile, catalogue: Catalogue) -> Backtest:
    """Run rules over a file of usage events, one JSON object per line, event by event.

    Raises:
        UserError: a line that is no event, or too many of them.
    """
    slices = sorted(_of_file(path, given.policies, catalogue))
    if not slices:
        message = f"{path}: none of its events is of a scope that the rules name"
        raise UserError(message)
    calendar = Calendar(given.rules.time_zone)
    start_ms = calendar.window(WindowKind.HOUR, slices[0].time_ms).start_ms
    run = begin(given.rules, given.policies, (), start_ms)
    run.take(slices)
    run.finish(slices[-1].time_ms)
    return run


def _of_file(
    path: Path, policies: Mapping[str, ScopePolicy], catalogue: Catalogue
) -> Iterator[SpendSlice]:
    lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    if len(lines) > EVENTS_MAX:
        message = f"{path}: {len(lines):,} events, at most {EVENTS_MAX:,}: use `alerts backtest`"
        raise UserError(message)
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        # No event of a file is in the future: there is no append time to compare with.
        usage = decode_usage(line, 2**53 - FUTURE_TOLERANCE_MS)
        for reject in usage.rejects:
            text = f"{path}, line {number}: {reject.reason.value}: {reject.detail}"
            raise UserError(text)
        for event in usage.events:
            if event.id in seen:
                continue
            seen.add(event.id)
            cost_nano_usd, _ = catalogue.price(event)
            tokens = event.input_tokens + event.output_tokens
            names = (event.organisation, event.department, event.project, event.user, event.key)
            for scope in scopes_of(*names):
                if scope in policies:
                    yield SpendSlice(event.time_ms, scope, cost_nano_usd, tokens)


def backtest_json(run: Backtest) -> dict[str, Any]:
    """The run as plain values: money as decimal strings of dollars, times in UTC."""
    return {
        "alerts": [
            {
                "at": rfc3339(raised.at_ms),
                "status": raised.alert.status.value,
                "severity": raised.alert.severity.value,
                "rule": raised.alert.rule_id,
                "scope": raised.alert.scope,
                "threshold": raised.alert.threshold,
                "period": raised.alert.period,
                "summary": raised.alert.summary,
            }
            for raised in run.alerts
        ],
        "commands": [
            {
                "at": rfc3339(each.at_ms),
                "scope": each.command.scope,
                "state": each.command.state.value,
                "reason": each.command.reason,
            }
            for each in run.commands
        ],
        "scopes": [
            {
                "scope": scope,
                "spent_usd": usd_text(spent),
                "refused_usd": usd_text(run.refused_nano_usd.get(scope, 0)),
            }
            for scope, spent in sorted(run.spent_nano_usd.items())
        ],
    }


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of an expectation file: an alert that must fire."""

    rule: str
    scope: str
    threshold: int | None = None
    """None: any threshold."""


def check_expected(run: Backtest, expected: Iterable[Expected]) -> list[str]:
    """Alerts that did not fire and alerts not expected; empty if all is as expected."""
    wanted = list(expected)
    fired = [raised.alert for raised in run.alerts if raised.alert.status is AlertStatus.FIRING]
    faults = []
    for alert in fired:
        match = next(
            (
                each
                for each in wanted
                if (each.rule, each.scope) == (alert.rule_id, alert.scope)
                and each.threshold in {None, alert.threshold}
            ),
            None,
        )
        if match is None:
            faults.append(f"not expected: {alert.rule_id} {alert.threshold} {alert.scope}")
        else:
            wanted.remove(match)
    faults += [f"did not fire: {each.rule} {each.threshold or ''} {each.scope}" for each in wanted]
    return faults


def read_expected(path: Path) -> list[Expected]:
    """A JSON list of {"rule", "scope", "threshold"}."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Expected])
    except msgspec.MsgspecError as error:
        message = f"{path}: {error}"
        raise UserError(message) from error


def chart_data(run: Backtest, scope: str, end_ms: int) -> ChartData:
    """What the chart of one scope shows; UserError if the scope spent nothing."""
    if not scope:
        scope = max(run.spent_nano_usd, key=lambda each: run.spent_nano_usd[each], default="")
    if scope not in run.curves:
        what = f"{scope} spent nothing" if scope else "no scope spent anything"
        message = f"{what} in this time: there is nothing to draw"
        raise UserError(message)
    markers = [
        ChartMarker(
            raised.at_ms,
            raised.alert.severity,
            raised.alert.status,
            f"{raised.alert.rule_id} {raised.alert.threshold}"
            if raised.alert.unit == "percent"
            else raised.alert.rule_id,
        )
        for raised in run.alerts
        if raised.alert.scope == scope
    ]
    states: list[tuple[int, int, BreakerState]] = []
    changes = [each for each in run.commands if each.command.scope == scope]
    for each, after in zip(changes, [*changes[1:], None], strict=True):
        until_ms = end_ms if after is None else after.at_ms
        if each.command.state is not BreakerState.CLOSED:
            states.append((each.at_ms, until_ms, each.command.state))
    # Dollars for the chart: the exact amounts are in `backtest_json`.
    curve = [(at_ms, spent / NANO_PER_USD) for at_ms, spent in run.curves[scope]]
    return ChartData(f"{scope}: back-test", curve, markers, states)
