"""Rules that look back, for one scope: what they expect now, what they say, and when to look again.

The engine asks three things:
    note       an hour's or minute's sum, also of the past: into the scope's track
    edge       the least sum of a window at which a rule may say something new
    signals    what every rule says now
A baseline holds for one hour and is worked out when it is first needed in that hour: a scope that
spends nothing costs nothing, and the stroke of the hour is no rush.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from meterline.alerting.core.lifecycle import Episode
from meterline.alerting.core.scope_rules import ScopeRules
from meterline.alerting.core.state import MinuteWatch, State
from meterline.alerting.core.totals import SpendSum
from meterline.alerting.rules import burn_rate, deviation
from meterline.alerting.rules.burn_rate import BudgetLeft
from meterline.alerting.rules.deviation import Baseline
from meterline.alerting.rules.evaluation import (
    Evaluation,
    Subject,
    amount_text,
    hundredths_text,
    percent_of,
    span_text,
)
from meterline.alerting.rules.history import (
    HOURS_KEPT,
    MINUTES_AHEAD_MAX,
    Past,
    Track,
    frozen_hours,
)
from meterline.alerting.rules.measurement import NANO_USD
from meterline.schemas.alert import Explanation, RuleType, Severity
from meterline.schemas.periods import HOUR_MS, MINUTE_MS, Window, WindowKind
from meterline.schemas.policy import ScopePolicy
from meterline.schemas.policy_rules import BurnRateRule, DeviationMethod, DeviationRule, NoDataRule
from meterline.schemas.rule_ref import RuleRef

# The days that a track may hold, and today.
DAYS_BACK = 10
# The longest window of a burn rate.
MINUTES_BACK_MAX = 120
OPEN_END = 2**40
"""The end of an incident that is not over, as a number of an hour."""
NEVER = 2**100
"""Beyond any sum of money."""
_BUDGETS = (WindowKind.MONTH, WindowKind.DAY)


def note(state: State, track: Track, spend: SpendSum) -> None:
    """Take one sum in; of any hour or minute, in any order."""
    match spend.kind:
        case WindowKind.HOUR:
            track.put_hour(spend.start_ms, spend.cost_nano_usd)
            state.alive.add(spend.start_ms // HOUR_MS)
        case WindowKind.MINUTE:
            track.put_minute(spend.start_ms, spend.cost_nano_usd)
        case WindowKind.DAY:
            # Days are kept for longer than hours: they tell how old a scope is.
            track.began(spend.start_ms // HOUR_MS)
        case WindowKind.MONTH:
            pass
    # A window's sum is news of its last event; without it, of the window's own time.
    seen_ms = spend.last_event_ms or min(spend.end_ms - 1, state.now_ms)
    if spend.kind in {WindowKind.HOUR, WindowKind.MINUTE}:
        track.last_event_ms = max(track.last_event_ms, seen_ms)


def roll(state: State) -> None:
    """Go over to the present hour."""
    hour = state.windows[WindowKind.HOUR].start_ms // HOUR_MS
    day = state.windows[WindowKind.DAY]
    starts = []
    for _ in range(DAYS_BACK):
        starts.append(day.start_ms // HOUR_MS)
        day = state.calendar.window(WindowKind.DAY, day.start_ms - 1)
    state.hour = hour
    state.days = tuple(starts)
    if len(state.alive) > 2 * HOURS_KEPT:
        state.alive = {each for each in state.alive if each > hour - HOURS_KEPT}


def baselines(state: State, scope: str, rules: ScopeRules) -> tuple[Baseline | None, ...]:
    """What each deviation rule expects in this hour."""
    known = state.baselines.get(scope)
    if known is not None and known[0] == state.hour:
        return known[1]
    track = state.tracks[scope]
    found = tuple(
        deviation.baseline(
            rule,
            Past(
                track,
                state.hour,
                frozen_hours(track.incidents, rule.freeze_hours_max),
                state.days,
                state.alive,
            ),
        )
        for rule in rules.deviations
    )
    state.baselines[scope] = (state.hour, found)
    return found


def edge(state: State, scope: str, kind: WindowKind, amount: int) -> int:
    """The least sum of the current window, above `amount`, that asks for an evaluation."""
    if scope not in state.tracks:
        return NEVER
    burning = state.minutes.get(scope)
    soonest = NEVER if burning is None or kind is WindowKind.HOUR else amount + burning.more
    known = state.baselines.get(scope)
    if kind is WindowKind.HOUR and (
        known is None or known[0] != state.hour or scope in state.silent
    ):
        # The hour's baseline is not known yet: its first spend asks for it.
        return amount + 1
    levels = [
        least
        for found in (known[1] if known is not None else ())
        if found is not None and found.kind is kind
        for _, least in found.levels
        if least > amount
    ]
    return min([soonest, *levels])


def minute_edge(state: State, scope: str, rules: ScopeRules) -> MinuteWatch:
    """How much more may be spent before a burn rate or a spike asks for a look."""
    minute = state.now_ms // MINUTE_MS
    track = state.tracks[scope]
    policy = state.scopes[scope].policy
    lacking = [*_lacking_for_spikes(state, scope, minute)]
    if policy is not None:
        for rule in rules.burn_rates:
            spent = burn_rate.pace(rule, track.minutes, minute)
            for _, left in budgets_left(state, policy):
                lacking.append(burn_rate.lacking(rule, left, spent))
    least = min((more for more in lacking if more > 0), default=NEVER)
    holds = any(more <= 0 for more in lacking)
    begin, end = minute + 1 - MINUTES_BACK_MAX, minute + 1 + MINUTES_AHEAD_MAX
    corrected = min(track.minutes.amounts(begin, end)) < 0
    return MinuteWatch(minute * MINUTE_MS, least, holds, holds or corrected)


def _lacking_for_spikes(state: State, scope: str, minute: int) -> Iterator[int]:
    """How much more in the current minute reaches each level; 0 or less if it is reached.

    Nothing while the hour's baseline is not known: the hour's first spend asks for it.
    """
    known = state.baselines.get(scope)
    if known is None or known[0] != state.hour:
        return
    for found in known[1]:
        if found is not None and found.kind is WindowKind.MINUTE:
            spent = deviation.last_hour(state.tracks[scope].minutes, minute)
            yield from (least - spent for _, least in found.levels)


def budgets_left(state: State, policy: ScopePolicy) -> Iterator[tuple[Window, BudgetLeft]]:
    """The scope's budgets in their current periods, the month's first."""
    for kind, limit in zip(
        _BUDGETS, (policy.budget.month_nano_usd, policy.budget.day_nano_usd), strict=True
    ):
        if limit is None:
            continue
        window = state.windows[kind]
        spend = state.spend.get((policy.scope, kind))
        current = spend is not None and spend.start_ms == window.start_ms
        spent = spend.cost_nano_usd if spend is not None and current else 0
        yield window, BudgetLeft(limit, spent, (window.end_ms - window.start_ms) // 1000)


def signals(state: State, policy: ScopePolicy, rules: ScopeRules) -> Iterator[Evaluation]:
    """What every rule that looks back says of a scope now."""
    scope = policy.scope
    found = baselines(state, scope, rules)
    for rule, expected in zip(rules.deviations, found, strict=True):
        yield _deviation(state, policy, rule, expected)
    for burn in rules.burn_rates:
        yield _burn_rate(state, policy, burn)
    for silence in rules.no_data:
        yield _no_data(state, policy, silence)


def begin_incident(state: State, scope: str) -> None:
    """A deviation is told: what is spent from this hour on is not learnt from."""
    track = state.tracks[scope]
    recent = [each for each in track.incidents if each[1] > state.hour - HOURS_KEPT]
    if not any(end == OPEN_END for _, end in recent):
        recent.append((state.hour, OPEN_END))
    track.incidents = tuple(recent)


def end_incident(state: State, scope: str) -> None:
    """No deviation is firing any more: the present hour is learnt from again."""
    track = state.tracks[scope]
    track.incidents = tuple(
        (first, max(first + 1, state.hour) if end == OPEN_END else end)
        for first, end in track.incidents
    )


def follow(state: State, scope: str, rules: ScopeRules, episodes: Mapping[RuleRef, Episode]) -> int:
    """Keep in mind what goes on in a scope; when its rules must look again, 0 for never."""
    open_kinds = {rule.kind for rule, each in episodes.items() if each.firing}
    if RuleType.DEVIATION in open_kinds:
        begin_incident(state, scope)
    else:
        end_incident(state, scope)
    if RuleType.NO_DATA in open_kinds:
        state.silent.add(scope)
    else:
        state.silent.discard(scope)
    due = []
    waits = any(
        each.firing or each.pending
        for rule, each in episodes.items()
        if rule.kind == RuleType.BURN_RATE
    )
    if waits:
        # Its windows move with every minute, and calm sends no events.
        due.append((state.now_ms // MINUTE_MS + 1) * MINUTE_MS)
    last_ms = state.tracks[scope].last_event_ms
    if last_ms:
        due += [last_ms + rule.after_seconds * 1000 for rule in rules.no_data]
    return min((each for each in due if each > state.now_ms), default=0)


def _deviation(
    state: State, policy: ScopePolicy, rule: DeviationRule, expected: Baseline | None
) -> Evaluation:
    day = state.windows[WindowKind.DAY]
    kind = WindowKind.DAY if rule.method is DeviationMethod.CUMULATIVE else WindowKind.HOUR
    if rule.method is DeviationMethod.SPIKE:
        minutes = state.tracks[policy.scope].minutes
        observed = deviation.last_hour(minutes, state.now_ms // MINUTE_MS)
    else:
        observed = _current(state, policy.scope, kind)
    level = limit = 0
    still_active = False
    explanation = None
    summary = ""
    lower: tuple[int, ...] = ()
    if expected is not None:
        reached = [threshold for threshold, least in expected.levels if observed >= least]
        level = max(reached, default=0)
        lower = tuple(reached[:-1])
        limit = expected.levels[0][1]
        still_active = observed >= expected.stays_at or not expected.quiet
        if level:
            # Nobody reads why nothing is told, and every scope is looked at in every hour.
            explanation = Explanation(
                method=rule.method.value,
                baseline_nano_usd=expected.expected_nano_usd,
                score_hundredths=expected.score(observed),
                excess_nano_usd=observed - expected.expected_nano_usd,
                samples=expected.samples,
            )
            summary = _deviation_text(policy, rule.method, observed, explanation)
    return Evaluation(
        rule=RuleRef(RuleType.DEVIATION.value, rule.id),
        rule_type=RuleType.DEVIATION,
        level=level,
        still_active=still_active,
        window=kind,
        period=state.periods[WindowKind.DAY],
        reset_at_ms=day.end_ms,
        observed=observed,
        limit=limit,
        percent=percent_of(observed, limit),
        unit=NANO_USD,
        severity=(
            Severity.ERROR
            if level >= deviation.LOUDER * rule.threshold_hundredths
            else Severity.WARNING
        ),
        summary=summary,
        explanation=explanation,
        for_seconds=rule.for_seconds,
        renotify_seconds=rule.renotify_seconds,
        lower_levels=lower,
    )


_SINCE = {
    DeviationMethod.CUMULATIVE: "so far today",
    DeviationMethod.HOURLY: "in this hour",
    DeviationMethod.SEASONAL: "in this hour",
    DeviationMethod.SPIKE: "in the last 60 minutes",
}


def _deviation_text(
    policy: ScopePolicy, method: DeviationMethod, observed: int, why: Explanation
) -> str:
    return (
        f"{Subject(policy.scope, policy.name).text} has spent {amount_text(observed, NANO_USD)} {_SINCE[method]}, where "
        f"{amount_text(why.baseline_nano_usd, NANO_USD)} is usual: "
        f"{amount_text(why.excess_nano_usd, NANO_USD)} more, "
        f"{hundredths_text(why.score_hundredths)} deviations"
    )


def _burn_rate(state: State, policy: ScopePolicy, rule: BurnRateRule) -> Evaluation:
    minute = state.now_ms // MINUTE_MS
    spent = burn_rate.pace(rule, state.tracks[policy.scope].minutes, minute)
    soonest: tuple[int, Window, BudgetLeft] | None = None
    still_active = False
    for window, left in budgets_left(state, policy):
        still_active = still_active or burn_rate.still_active(rule, left, spent)
        if burn_rate.lacking(rule, left, spent) <= 0:
            seconds = burn_rate.seconds_left(rule, left, spent)
            if soonest is None or seconds < soonest[0]:
                soonest = (seconds, window, left)
    hour = state.windows[WindowKind.HOUR]
    window = hour
    limit = 0
    summary = ""
    explanation = None
    if soonest is not None:
        seconds, window, left = soonest
        limit = left.limit
        explanation = Explanation(method="burn_rate", seconds_left=seconds)
        summary = (
            f"{Subject(policy.scope, policy.name).text} spends its {window.kind} budget of {amount_text(limit, NANO_USD)} "
            f"too fast: {amount_text(spent.long, NANO_USD)} in {span_text(rule.long_seconds)}, "
            f"{amount_text(spent.short, NANO_USD)} in {span_text(rule.short_seconds)}; "
            f"{amount_text(left.remaining, NANO_USD)} is left and ends in {span_text(seconds)}"
        )
    return Evaluation(
        rule=RuleRef(RuleType.BURN_RATE.value, rule.id),
        rule_type=RuleType.BURN_RATE,
        level=1 if soonest is not None else 0,
        still_active=still_active,
        window=window.kind,
        period=state.periods[WindowKind.HOUR],
        reset_at_ms=window.end_ms,
        observed=spent.long,
        limit=limit,
        percent=percent_of(spent.long, limit),
        unit=NANO_USD,
        severity=Severity.CRITICAL,
        summary=summary,
        explanation=explanation,
        for_seconds=rule.for_seconds,
        renotify_seconds=rule.renotify_seconds,
    )


def _no_data(state: State, policy: ScopePolicy, rule: NoDataRule) -> Evaluation:
    last_ms = state.tracks[policy.scope].last_event_ms
    silent_seconds = max(0, state.now_ms - last_ms) // 1000 if last_ms else 0
    holds = silent_seconds >= rule.after_seconds
    minute = state.calendar.window(WindowKind.MINUTE, last_ms)
    return Evaluation(
        rule=RuleRef(RuleType.NO_DATA.value, rule.id),
        rule_type=RuleType.NO_DATA,
        level=1 if holds else 0,
        still_active=holds,
        window=WindowKind.MINUTE,
        # The silence has its name from the last that was heard.
        period=state.calendar.period(minute),
        reset_at_ms=0,
        observed=silent_seconds,
        limit=rule.after_seconds,
        percent=percent_of(silent_seconds, rule.after_seconds),
        unit="seconds",
        severity=Severity.WARNING,
        summary=f"{Subject(policy.scope, policy.name).text} has not spent anything for {span_text(silent_seconds)}",
        explanation=None,
        for_seconds=rule.for_seconds,
        renotify_seconds=rule.renotify_seconds,
    )


def _current(state: State, scope: str, kind: WindowKind) -> int:
    spend = state.spend.get((scope, kind))
    if spend is None or spend.start_ms != state.windows[kind].start_ms:
        return 0
    return spend.cost_nano_usd
