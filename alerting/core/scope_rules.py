"""The rules of a scope's history: which apply, what they say, and when to ask again. Pure.

The engine asks
    note           an hour's or minute's sum, also of the past: into the scope's history
    evaluations    what every rule says now
    amount_bound   the least sum of a window from which on a rule may say something else
    minute_bound   the same for rules that look at the last minutes
What a rule prepares (a baseline) holds for one hour and is computed when it is first needed in that
hour: a scope that spends nothing costs nothing, and nothing is urgent on the hour.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from meterline.alerting.core.lifecycle import Episode
from meterline.alerting.core.state import MinuteHeadroom, PreparedRules, State
from meterline.alerting.rules.evaluation import Evaluation
from meterline.alerting.rules.history import (
    HOURS_KEPT,
    MINUTES_AHEAD_MAX,
    OPEN_END,
    PastHours,
    SpendHistory,
)
from meterline.alerting.rules.kind import ActiveRule, ScopeView
from meterline.alerting.rules.measurement import SpendSum
from meterline.schemas.periods import HOUR_MS, MINUTE_MS, WindowKind
from meterline.schemas.policy import ScopePolicy
from meterline.schemas.rule_ref import RuleRef
from meterline.schemas.scopes import ScopeError, parse_scope

# The days that a history may hold, and today.
DAYS_BACK = 10
# The longest window of a burn rate.
MINUTES_BACK_MAX = 120
NEVER = 2**100
"""Beyond any sum of money."""


def rules_of(rules: Collection[ActiveRule], policy: ScopePolicy | None) -> tuple[ActiveRule, ...]:
    """The rules that apply to a scope; none to one without policy."""
    if policy is None:
        return ()
    try:
        scope_type = parse_scope(policy.scope).type
    except ScopeError:
        return ()  # a record that no policy file makes
    return tuple(each for each in rules if each.kind.applies_to(each.rule, scope_type, policy))


def view_of(state: State, policy: ScopePolicy) -> ScopeView:
    """What the rules of a scope with history may look at."""
    return ScopeView(
        policy,
        state.now_ms,
        state.now_ms // MINUTE_MS,
        state.calendar,
        state.windows,
        state.periods,
        state.spend,
        state.histories[policy.scope],
    )


def note(state: State, history: SpendHistory, spend: SpendSum) -> None:
    """Record one sum; of any hour or minute, in any order."""
    match spend.kind:
        case WindowKind.HOUR:
            history.put_hour(spend.start_ms, spend.cost_nano_usd)
            state.alive.add(spend.start_ms // HOUR_MS)
        case WindowKind.MINUTE:
            history.put_minute(spend.start_ms, spend.cost_nano_usd)
        case WindowKind.DAY:
            # Days are kept for longer than hours: the age of a scope is read from them.
            history.began(spend.start_ms // HOUR_MS)
        case WindowKind.MONTH:
            pass
    # A window's sum is as new as its last event; without it, as the window's own time.
    seen_ms = spend.last_event_ms or min(spend.end_ms - 1, state.now_ms)
    if spend.kind in {WindowKind.HOUR, WindowKind.MINUTE}:
        history.last_event_ms = max(history.last_event_ms, seen_ms)


def roll(state: State) -> None:
    """Go over to the current hour."""
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


def evaluations(
    state: State, policy: ScopePolicy, rules: tuple[ActiveRule, ...]
) -> Iterator[Evaluation]:
    """What every rule says of its scope now."""
    view = view_of(state, policy)
    by_rule = _prepared(state, policy.scope, rules).by_rule
    for (kind, _, rule, _), prepared in zip(rules, by_rule, strict=True):
        yield kind.evaluate(rule, prepared, view)


def amount_bound(state: State, scope: str, kind: WindowKind, amount: int) -> int:
    """The least sum of the current window, above `amount`, that asks for an evaluation."""
    if scope not in state.histories:
        return NEVER
    minute = state.minutes.get(scope)
    soonest = NEVER if minute is None or kind is WindowKind.HOUR else amount + minute.more
    if kind is WindowKind.HOUR and (_known(state, scope) is None or scope in state.silent):
        # What holds for the hour is not known yet: its first spend asks for it.
        return amount + 1
    prepared = state.baselines.get(scope)
    if prepared is None:
        return soonest
    # For a day what the hour before prepared still serves, until this hour's first spend.
    for window, least in prepared[1].amounts:
        if window is kind and amount < least < soonest:
            soonest = least
    return soonest


def minute_bound(
    state: State, policy: ScopePolicy, rules: tuple[ActiveRule, ...]
) -> MinuteHeadroom:
    """How much more may be spent before a rule that looks at the last minutes needs evaluation."""
    view = view_of(state, policy)
    known = _known(state, policy.scope)
    headroom = [
        more
        for (kind, _, rule, _), prepared in zip(
            rules, (None,) * len(rules) if known is None else known.by_rule, strict=True
        )
        for more in kind.headroom(rule, prepared, view)
    ]
    least = min((more for more in headroom if more > 0), default=NEVER)
    holds = any(more <= 0 for more in headroom)
    begin, end = view.minute + 1 - MINUTES_BACK_MAX, view.minute + 1 + MINUTES_AHEAD_MAX
    corrected = min(view.history.minutes.amounts(begin, end)) < 0
    return MinuteHeadroom(view.minute * MINUTE_MS, least, holds, holds or corrected)


def follow_up(
    state: State,
    policy: ScopePolicy,
    rules: tuple[ActiveRule, ...],
    episodes: Mapping[RuleRef, Episode],
) -> int:
    """Record what fires in a scope; when its rules must be evaluated again, 0 for never."""
    scope = policy.scope
    firing = {rule.kind for rule, each in episodes.items() if each.firing}
    waiting = {rule.kind for rule, each in episodes.items() if each.pending}
    if firing.isdisjoint(state.kinds.frozen):
        _end_incident(state, scope)
    else:
        _begin_incident(state, scope)
    if firing.isdisjoint(state.kinds.ended_by_spend):
        state.silent.discard(scope)
    else:
        state.silent.add(scope)
    view = view_of(state, policy)
    due = (
        kind.recheck_ms(rule, view, is_active=kind.name in firing or kind.name in waiting)
        for kind, _, rule, _ in rules
    )
    return min((each for each in due if each > state.now_ms), default=0)


def _prepared(state: State, scope: str, rules: tuple[ActiveRule, ...]) -> PreparedRules:
    """What each rule has prepared for this hour."""
    known = _known(state, scope)
    if known is not None:
        return known
    history = state.histories[scope]
    past = PastHours(history, state.hour, history.incidents, state.days, state.alive)
    by_rule = tuple(kind.prepare(rule, past) for kind, _, rule, _ in rules)
    found = PreparedRules(
        by_rule,
        tuple(
            bound
            for (kind, _, _, _), prepared in zip(rules, by_rule, strict=True)
            if prepared is not None
            for bound in kind.amounts(prepared)
        ),
    )
    state.baselines[scope] = (state.hour, found)
    return found


def _known(state: State, scope: str) -> PreparedRules | None:
    """What was prepared for this hour; None if nothing was."""
    known = state.baselines.get(scope)
    return None if known is None or known[0] != state.hour else known[1]


def _begin_incident(state: State, scope: str) -> None:
    """An alert fires: what is spent from this hour on is not learnt from."""
    history = state.histories[scope]
    recent = [each for each in history.incidents if each[1] > state.hour - HOURS_KEPT]
    if not any(end == OPEN_END for _, end in recent):
        recent.append((state.hour, OPEN_END))
    history.incidents = tuple(recent)


def _end_incident(state: State, scope: str) -> None:
    """Nothing fires any more: the current hour is learnt from again."""
    history = state.histories[scope]
    history.incidents = tuple(
        (first, max(first + 1, state.hour) if end == OPEN_END else end)
        for first, end in history.incidents
    )
