"""The audit: truth against everything the pipeline says. Pure, of what was read.

Every function answers with the differences it found, as sentences; none is the proof.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from benchmarks.chaos_suite.journal import Entry, Kind
from benchmarks.chaos_suite.policy import THRESHOLDS
from benchmarks.chaos_suite.topics import Topics
from meterline.alerting.rules.measurement import reached
from meterline.operations.replay.truth import Truth, TruthSums, WindowKey
from meterline.schemas.alert import Alert, AlertStatus, RuleType
from meterline.schemas.dead_letter import DeadLetter
from meterline.schemas.periods import Calendar, WindowKind
from meterline.schemas.rule_ref import RuleId

Version = tuple[int, int]
LetterRow = tuple[int, int, int, str]
"""Partition, offset, index and reason."""
BELIEF_RULES: Mapping[RuleId, WindowKind] = {
    RuleId.BUDGET_MONTH: WindowKind.MONTH,
    RuleId.DAY_SPEND: WindowKind.DAY,
    RuleId.DAY_TOKENS: WindowKind.DAY,
    RuleId.HOUR_SPEND: WindowKind.HOUR,
}


def dead_letters(
    journal: Iterable[Entry], topics: Topics, stored: Collection[LetterRow]
) -> Iterator[str]:
    """Every malformed event is a dead letter with its reason, and nothing else is."""
    reasons = {entry.id: entry.reason for entry in journal if entry.reason is not None}
    raw = {entry.id for entry in journal if entry.kind is Kind.BROKEN}
    seen: set[str] = set()
    unexplained = set(topics.broken)
    for letter in topics.dead_letters.values():
        place = (letter.partition, letter.offset)
        name = topics.broken.get(place) or letter.event_id
        seen.add(name)
        unexplained.discard(place)
        if name not in reasons:
            yield f"a dead letter of what was good: {_shown(letter)}"
        elif reasons[name] is not letter.reason:
            yield f"dead letter with another reason than {reasons[name]}: {_shown(letter)}"
    for place in sorted(unexplained):
        yield f"no dead letter of the broken message at {place}: {topics.broken[place]}"
    for name in sorted(set(reasons) - seen):
        kind = "message" if name in raw else "event"
        yield f"no dead letter of broken {kind} {name} ({reasons[name]})"
    published = {
        (each.partition, each.offset, each.index, each.reason.value)
        for each in topics.dead_letters.values()
    }
    if published != set(stored):
        yield f"ClickHouse has {len(stored)} dead letters, the topic {len(published)}"


def _shown(letter: DeadLetter) -> str:
    return f"{letter.key()} {letter.reason.value} {letter.event_id} {letter.detail}"


def thresholds(
    truth: Truth, budgets: Mapping[str, int], alerts: Sequence[Alert], period: str
) -> Iterator[str]:
    """Every threshold that was reached was notified exactly once, and none that was not.

    Args:
        truth: what was spent.
        budgets: the month budgets of the load's policy.
        alerts: the topic in its order, repeats included.
        period: the current month.
    """
    notified: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for alert in unique(alerts):
        if alert.rule_id != RuleId.BUDGET_MONTH or alert.budget_version != 1:
            continue
        if alert.status is AlertStatus.FIRING and alert.period == period:
            notified[alert.scope].update((alert.threshold, *alert.also_crossed))
    spent = month_spend(truth, period)
    for scope, budget in budgets.items():
        wanted = Counter(p for p in THRESHOLDS if reached(spent.get(scope, 0), budget, p))
        if notified[scope] != wanted:
            yield (
                f"thresholds of {scope} (spent {spent.get(scope, 0)} of {budget}): "
                f"notified {sorted(notified[scope].elements())}, reached {sorted(wanted)}"
            )
    yield from _transitions(alerts)


def _transitions(alerts: Sequence[Alert]) -> Iterator[str]:
    """An alert fires, then resolves; repeats after a crash have the same id.

    What is said of the pipeline itself (its lag) comes and goes with its cause, several times an
    hour on a busy machine whose workers are killed; what is spent never comes back.
    """
    states: dict[str, AlertStatus] = {}
    for alert in alerts:
        before = states.get(alert.dedup_key)
        if alert.status is AlertStatus.RESOLVED and before is None:
            yield f"resolved, but never fired: {alert.dedup_key}"
        again = alert.status is AlertStatus.FIRING and before is AlertStatus.RESOLVED
        if again and alert.rule_type is not RuleType.PIPELINE:
            yield f"fired again after its resolution: {alert.dedup_key}"
        states[alert.dedup_key] = alert.status


def unique(alerts: Iterable[Alert]) -> list[Alert]:
    """Each id once."""
    return list({alert.id: alert for alert in alerts}.values())


def month_spend(truth: Truth, period: str) -> dict[str, int]:
    """Nano-USD by scope in one month."""
    calendar = Calendar(truth.time_zone)
    return {
        key.scope: sums.cost_nano_usd
        for key, sums in truth.windows()
        if key.kind is WindowKind.MONTH
        and calendar.period(calendar.window(key.kind, key.start_ms)) == period
    }


def believed(alerts: Iterable[Alert]) -> dict[tuple[str, str, str], int]:
    """What the alerts worker believes, by scope, rule and period: nano-USD or tokens.

    Said in the alerts of the policy that lets every scope spend next to nothing.
    """
    return {
        (alert.scope, alert.rule_id, alert.period): alert.observed
        for alert in alerts
        if alert.status is AlertStatus.FIRING and alert.limit == 1
    }


def expected_belief(truth: Truth, now_ms: int) -> dict[tuple[str, str, str], int]:
    """What it should believe of the windows that `now_ms` is in."""
    calendar = Calendar(truth.time_zone)
    current = {window.kind: window for window in calendar.windows(now_ms)}
    totals: dict[WindowKey, TruthSums] = dict(truth.windows())
    wanted = {}
    for (scope, kind, start_ms), sums in totals.items():
        window = current[kind]
        if start_ms != window.start_ms:
            continue
        for rule, rule_kind in BELIEF_RULES.items():
            if rule_kind is kind:
                tokens = sums.input_tokens + sums.output_tokens
                observed = tokens if rule is RuleId.DAY_TOKENS else sums.cost_nano_usd
                if observed > 0:
                    wanted[scope, rule.value, calendar.period(window)] = observed
    return wanted


def belief(
    wanted: Mapping[tuple[str, str, str], int], found: Mapping[tuple[str, str, str], int]
) -> Iterator[str]:
    """Truth against what the alerts worker says."""
    for place, observed in sorted(wanted.items()):
        if place not in found:
            yield f"alerting knows nothing of {place}, truth is {observed}"
        elif found[place] != observed:
            yield f"alerting believes {found[place]} of {place}, truth is {observed}"


def deliveries(alerts: Iterable[Alert], received: Mapping[str, Collection[bytes]]) -> Iterator[str]:
    """Every alert reached the receiver, under one id and with one body, and nothing else did."""
    wanted = {f"msg_{alert.id}" for alert in alerts}
    for name in sorted(wanted - set(received)):
        yield f"never delivered: {name}"
    for name in sorted(set(received) - wanted):
        yield f"delivered, but no alert: {name}"
    for name, bodies in received.items():
        if len(bodies) != 1:
            yield f"{len(bodies)} different bodies under one id: {name}"


def stale(topics: Topics, gates: Mapping[str, Mapping[str, Version]]) -> Iterator[str]:
    """Every relay has the newest command of every scope in force, and has said so."""
    for relay, versions in gates.items():
        for scope, command in topics.commands.items():
            if versions.get(scope) != command.version:
                yield f"{relay} has {versions.get(scope)} for {scope}, newest {command.version}"
            elif topics.acknowledged.get((relay, scope)) != command.version:
                acknowledged = topics.acknowledged.get((relay, scope))
                yield f"{relay} acknowledged {acknowledged} for {scope}, has {command.version}"
