"""The engine: spend, policy and time in; throttle commands and alerts out. Pure.

    step(state, observation, now_ms) -> (state, effects)

Per scope there is one evaluation, whatever caused it:

    spend in the current hour, day, month
        -> measurements (one per budget and limit)
        -> breakers (budgets) and limits     -> causes -> one desired throttle state -> command
        -> thresholds and limits, episodes   -> alerts
Budgets and limits of a scope feed one command, because a command is the scope's full state.

Most observations change nothing. Each (scope, window kind) therefore keeps the range between the
two nearest amounts at which any rule may answer otherwise; a sum inside it costs two lookups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from heapq import heappop, heappush

from meterline.alerting.core import desired_state as desired
from meterline.alerting.core import lifecycle, manual, pipeline_alerts, scope_rules, takeover
from meterline.alerting.core.breaker import TripReason
from meterline.alerting.core.lifecycle import Episode
from meterline.alerting.core.scope_command import breaker_steps, command_for
from meterline.alerting.core.state import (
    AlertSeen,
    CommandSeen,
    Effect,
    Fenced,
    FenceReason,
    HealthChecksSeen,
    MinuteHeadroom,
    NoChangeRange,
    Observation,
    PolicyChanged,
    PublishAlert,
    PublishThrottle,
    ScopeState,
    State,
    Tick,
)
from meterline.alerting.core.trigger_bounds import (
    CURRENT_WINDOWS,
    measurements_of,
    nearest,
    set_breakpoints,
    set_minute_headroom,
    set_no_change_range,
)
from meterline.alerting.rules import limits, thresholds
from meterline.alerting.rules.evaluation import Evaluation, Subject
from meterline.alerting.rules.history import SpendHistory
from meterline.alerting.rules.measurement import Measurement, SpendSum
from meterline.alerting.rules.registry import RULES, RuleKinds
from meterline.schemas.alert import Alert, RuleType
from meterline.schemas.manual import BudgetOverride, ManualObject, ManualThrottle
from meterline.schemas.periods import MINUTE_MS, Calendar, WindowKind
from meterline.schemas.policy import RULES_ID, RuleSet, ScopePolicy
from meterline.schemas.rule_ref import BUDGET_RULES, RuleId, RuleRef, rule_ref
from meterline.schemas.throttle import BreakerState, ThrottleCommand

ISSUER = "alerts"
_SPEND_KINDS = frozenset({RuleType.THRESHOLD.value, RuleType.LIMIT.value})


# Evaluations at one moment that can wait for the next: about half a millisecond each, with three
# baselines, so that a throttle command of the same round is held back by 50 ms at most.
ROUND_WORK_MAX = 100


def start(epoch: int, rules: RuleSet, now_ms: int, kinds: RuleKinds = RULES) -> State:
    """An engine that knows nothing but the rules and the time.

    Raises:
        PolicyRecordError: rules of a kind that are not its own.
    """
    state = State(
        epoch=epoch,
        calendar=Calendar(rules.time_zone),
        kinds=kinds,
        rules=rules,
        active_rules=kinds.published(rules),
        now_ms=now_ms,
    )
    _roll(state)
    return state


def step(state: State, observation: Observation, now_ms: int) -> tuple[State, tuple[Effect, ...]]:
    """Apply one observation.

    Args:
        state: is changed and given back; `State.copy` keeps what it was.
        observation: what was seen.
        now_ms: the current time; an earlier one than before counts as that one.

    Returns:
        The state and the effects, in the order in which they must be carried out.
    """
    state.now_ms = max(now_ms, state.now_ms)
    effects: list[Effect] = []
    if state.now_ms >= next_timer(state):
        effects += _run_timers(state)
    match observation:
        case SpendSum():
            effects += _observe_spend(state, observation)
        case PolicyChanged():
            effects += _observe_policy(state, observation)
        case Tick(complete):
            effects += _observe_completeness(state, complete=complete)
        case CommandSeen(command):
            effects += _observe_command(state, command)
        case AlertSeen(alert):
            effects += _observe_alert(state, alert)
        case HealthChecksSeen():
            effects += map(PublishAlert, pipeline_alerts.observe(state, observation))
    return state, ordered(effects) if effects else ()


def next_timer(state: State) -> int:
    """When time alone may change something, in UTC ms."""
    if state.waiting:
        return state.round_ms + 1
    timers = state.timers
    while timers:
        due_ms, scope = timers[0]
        known = state.scopes.get(scope)
        if known is not None and known.due_ms == due_ms:
            return min(due_ms, state.roll_ms)
        heappop(timers)
    return state.roll_ms


def ordered(effects: Iterable[Effect]) -> tuple[Effect, ...]:
    """Fences first, then throttle commands, then alerts: nothing delays a command."""
    rank = {Fenced: 0, PublishThrottle: 1, PublishAlert: 2}
    return tuple(sorted(effects, key=lambda effect: rank[type(effect)]))


def evaluate_scope(state: State, scope: str, *, renew: bool = False) -> list[Effect]:
    """Bring one scope's breakers, command and alerts in line with its spend, policy and time.

    Args:
        state: is changed.
        scope: one that the state knows.
        renew: publish the command again although nothing changed (a lease, a claim).
    """
    known = _with_override(state, scope)
    state.waiting.pop(scope, None)
    measurements = {
        measurement.rule_id: measurement
        for measurement in measurements_of(state, scope, known.policy)
    }
    steps = dict(breaker_steps(state, known, measurements))
    if any(step.reason is TripReason.HELD_BY_GRACE for step in steps.values()):
        state.held.add(scope)
    else:
        state.held.discard(scope)
    known = replace(known, breakers={rule_id: step.breaker for rule_id, step in steps.items()})
    command = command_for(state, scope, known, measurements, renew=renew)
    effects: list[Effect] = []
    if command is not None:
        state.seq = command.seq
        known = replace(known, published=command)
        effects.append(PublishThrottle(command))
    known, alerts, due = _alerts(state, scope, known, measurements)
    given = () if command is None else (f"{scope}@{command.epoch}.{command.seq}",)
    effects += [PublishAlert(alert.model_copy(update={"commands": given})) for alert in alerts]
    _store(state, scope, known, [*due, *(step.recheck_ms for step in steps.values())])
    set_minute_headroom(state, scope)
    for kind in CURRENT_WINDOWS:
        set_no_change_range(state, scope, kind)
    return effects


def _with_override(state: State, scope: str) -> ScopeState:
    """The scope with the budget that holds now: an override begins and ends by the time alone."""
    known = state.scopes[scope]
    if known.override is None:
        return known
    policy = manual.effective(known.base, known.override, state.now_ms)
    if policy != known.policy:
        known = state.scopes[scope] = replace(known, policy=policy)
        _set_rules_of(state, scope, policy)
    return known


def _observe_spend(state: State, spend: SpendSum) -> list[Effect]:
    key = (spend.scope, spend.kind)
    history = state.histories.get(spend.scope)
    if history is not None:
        if spend.kind is WindowKind.MINUTE:
            before = history.minutes.get(spend.start_ms // MINUTE_MS)
            scope_rules.note(state, history, spend)
            return _observe_minute(state, spend, spend.cost_nano_usd - before)
        scope_rules.note(state, history, spend)
    set_no_change_range = state.no_change.get(key)
    if set_no_change_range is None:
        return []
    start_ms = state.windows[spend.kind].start_ms
    if spend.start_ms != start_ms:
        if spend.start_ms > start_ms:
            state.ahead[key] = spend
        # An earlier window is over: its late events are counted there, and restrict nothing now.
        return []
    state.spend[key] = spend
    if set_no_change_range.start_ms != start_ms:
        return _observe_first(state, spend)
    if (
        set_no_change_range.cost_low <= spend.cost_nano_usd < set_no_change_range.cost_high
        and set_no_change_range.tokens_low <= spend.tokens < set_no_change_range.tokens_high
    ):
        return []
    return evaluate_scope(state, spend.scope)


def _observe_first(state: State, spend: SpendSum) -> list[Effect]:
    """The first sum of a scope in a window: limits at once, the rest within the round's work.

    On the hour every scope needs new baselines. A round that computed them all would delay the
    commands of the scopes that reach a limit in it.
    """
    cost, tokens = state.breakpoints[spend.scope, spend.kind]
    low, high = nearest(cost, 0)
    fewest, most = nearest(tokens, 0)
    within = low <= spend.cost_nano_usd < high and fewest <= spend.tokens < most
    if within and not _has_time(state):
        state.no_change[spend.scope, spend.kind] = NoChangeRange(
            spend.start_ms, low, high, fewest, most
        )
        state.waiting[spend.scope] = None
        return []
    return evaluate_scope(state, spend.scope)


def _has_time(state: State) -> bool:
    """Whether another evaluation that can wait still fits into what is done at one moment."""
    if state.round_ms != state.now_ms:
        state.round_ms = state.now_ms
        state.round_work = 0
    state.round_work += 1
    return state.round_work <= ROUND_WORK_MAX


def _observe_minute(state: State, spend: SpendSum, grown: int) -> list[Effect]:
    """Minutes matter to burn rates and spikes, whose windows end now."""
    known = state.minutes.get(spend.scope)
    if known is None:
        return []
    current = spend.start_ms == known.start_ms <= state.now_ms < known.start_ms + MINUTE_MS
    if grown < known.more and (current or not known.each_minute):
        if grown > 0:
            state.minutes[spend.scope] = MinuteHeadroom(
                known.start_ms, known.more - grown, known.holds, known.each_minute
            )
        return []
    # A rule may hold, or every minute is evaluated.
    set_minute_headroom(state, spend.scope)
    if state.minutes[spend.scope].holds:
        return evaluate_scope(state, spend.scope)
    for kind in (WindowKind.DAY, WindowKind.MONTH):
        set_no_change_range(state, spend.scope, kind)
    return []


def _observe_policy(state: State, change: PolicyChanged) -> list[Effect]:
    match change.item:
        case ScopePolicy() as policy:
            return _set_policy(state, policy.scope, policy, change.spend)
        case RuleSet() as rules:
            return _set_rules(state, rules)
        case ManualThrottle() | BudgetOverride() as item:
            set_manual(state, item)
            return evaluate_scope(state, item.scope)
        case None if change.object_id == RULES_ID:
            return _set_rules(state, RuleSet())
        case None:
            known = change.object_id in state.scopes
            return _set_policy(state, change.object_id, None, ()) if known else []
        case _:
            return []


def set_manual(state: State, item: ManualObject) -> None:
    """Store a manual throttle or an override; the next evaluation of its scope applies it."""
    known = state.scopes.get(item.scope, ScopeState())
    match item:
        case ManualThrottle():
            state.scopes[item.scope] = replace(known, manual_throttle=item)
        case BudgetOverride():
            state.scopes[item.scope] = replace(known, override=item)


def _set_policy(
    state: State, scope: str, policy: ScopePolicy | None, spend: Iterable[SpendSum]
) -> list[Effect]:
    known = state.scopes.get(scope, ScopeState())
    base, policy = policy, manual.effective(policy, known.override, state.now_ms)
    state.scopes[scope] = replace(known, base=base, policy=policy)
    _set_rules_of(state, scope, policy)
    for total in spend:
        _keep(state, total)
        history = state.histories.get(scope)
        if history is not None:
            scope_rules.note(state, history, total)
    return evaluate_scope(state, scope)


def _set_rules(state: State, rules: RuleSet) -> list[Effect]:
    moved = rules.time_zone != state.rules.time_zone
    state.active_rules = state.kinds.published(rules)
    state.rules = rules
    if moved:
        state.calendar = Calendar(rules.time_zone)
        state.roll_ms = 0
        _roll(state)
    effects: list[Effect] = []
    for scope in list(state.scopes):
        _set_rules_of(state, scope, state.scopes[scope].policy)
        effects += evaluate_scope(state, scope)
    return effects


def _observe_completeness(state: State, *, complete: bool) -> list[Effect]:
    became_complete = complete and not state.complete
    state.complete = complete
    effects: list[Effect] = []
    if became_complete:
        for scope in sorted(state.held):
            effects += evaluate_scope(state, scope)
    return effects


def _observe_command(state: State, command: ThrottleCommand) -> list[Effect]:
    if command.issuer != ISSUER:
        return []
    if command.epoch > state.epoch:
        return [Fenced(FenceReason.NEWER_EPOCH, command.epoch)]
    known = state.scopes.get(command.scope, ScopeState())
    if command.epoch == state.epoch:
        is_foreign = command.seq > state.seq or (
            known.published is not None
            and command.version == known.published.version
            and command != known.published
        )
        return [Fenced(FenceReason.SAME_EPOCH, command.epoch)] if is_foreign else []
    # A controller that was replaced still writes. Relays that have this controller's command
    # refuse it, but the compacted topic would keep it as the scope's last record: write ours again.
    state.scopes[command.scope] = replace(known, published=command)
    return evaluate_scope(state, command.scope, renew=True)


def _observe_alert(state: State, alert: Alert) -> list[Effect]:
    effects: list[Effect] = [PublishAlert(each) for each in takeover.take_over(state, alert)]
    # What was taken over and does not hold is resolved like this controller's own alerts.
    return effects + evaluate_scope(state, alert.scope) if alert.scope in state.scopes else effects


def _run_timers(state: State) -> list[Effect]:
    due: set[str] = set()
    if state.now_ms >= state.roll_ms:
        due |= _roll(state)
    while state.timers and state.timers[0][0] <= state.now_ms:
        due_ms, scope = heappop(state.timers)
        known = state.scopes.get(scope)
        if known is not None and known.due_ms == due_ms:
            state.scopes[scope] = replace(known, due_ms=0)
            due.add(scope)
    state.waiting.update(dict.fromkeys(sorted(due)))
    effects: list[Effect] = []
    while state.waiting and _has_time(state):
        scope, _ = state.waiting.popitem(last=False)
        if scope in state.scopes:
            effects += evaluate_scope(state, scope)
    return effects


def _roll(state: State) -> set[str]:
    """Go over to the current windows; the scopes that this concerns."""
    now_ms = state.now_ms
    _, hour, day, month = state.calendar.windows(now_ms)
    state.windows = {window.kind: window for window in (hour, day, month)}
    state.periods = {kind: state.calendar.period(at) for kind, at in state.windows.items()}
    state.roll_ms = min(window.end_ms for window in state.windows.values())
    scope_rules.roll(state)
    begun = [spend for spend in state.ahead.values() if spend.start_ms <= now_ms]
    for spend in begun:
        del state.ahead[spend.scope, spend.kind]
        _keep(state, spend)
    # No-change ranges are of a window that is over: a scope's next evaluation renews its own.
    return state.active | {spend.scope for spend in begun}


def _keep(state: State, spend: SpendSum) -> None:
    key = (spend.scope, spend.kind)
    window = state.windows.get(spend.kind)
    if window is None or key not in state.breakpoints:
        return
    if spend.start_ms == window.start_ms:
        state.spend[key] = spend
    elif spend.start_ms > window.start_ms:
        state.ahead[key] = spend


def _set_rules_of(state: State, scope: str, policy: ScopePolicy | None) -> None:
    """The rules that a scope has from now on, and the history that they need."""
    rules = scope_rules.rules_of(state.active_rules, policy)
    state.baselines.pop(scope, None)
    state.minutes.pop(scope, None)
    if rules:
        state.scope_rules[scope] = rules
        state.histories.setdefault(scope, SpendHistory())
    else:
        state.scope_rules.pop(scope, None)
        state.histories.pop(scope, None)
        state.silent.discard(scope)
    set_breakpoints(state, scope, policy)


def _alerts(
    state: State, scope: str, known: ScopeState, measurements: dict[RuleId, Measurement]
) -> tuple[ScopeState, list[Alert], list[int]]:
    """The lifecycles of all rules of a scope; and when time alone would change one of them."""
    now_ms, policy = state.now_ms, known.policy
    before = dict(known.episodes)
    # What ended with its period or budget version is resolved before anything new fires.
    alerts = _ended(before, measurements, now_ms)
    episodes: dict[RuleRef, Episode] = {}
    due: list[int] = []
    if policy is not None:
        subject = Subject(scope, policy.name)
        found = [*_spend_evaluations(state, subject, measurements, before)]
        rules = state.scope_rules.get(scope)
        if rules is not None:
            found += scope_rules.evaluations(state, policy, rules)
        for evaluation in found:
            episode = before.pop(evaluation.rule, None)
            if episode is None and not evaluation.level:
                continue  # nothing has fired, and nothing is to fire
            moved = lifecycle.advance(episode, subject, evaluation, policy.budget_version, now_ms)
            alerts += moved.alerts
            due.append(moved.due_ms)
            if moved.episode is not None:
                episodes[evaluation.rule] = moved.episode
        if rules is not None:
            due.append(scope_rules.follow_up(state, policy, rules, episodes))
    for gone in before.values():
        alerts += lifecycle.abandon(gone, now_ms)
    return replace(known, episodes=episodes), alerts, due


def _ended(
    episodes: dict[RuleRef, Episode], measurements: dict[RuleId, Measurement], now_ms: int
) -> list[Alert]:
    """Resolve the episodes of budgets and limits whose period, version or rule is over."""
    alerts: list[Alert] = []
    for rule in [each for each in episodes if each.kind in _SPEND_KINDS]:
        measurement = measurements.get(RuleId(rule.id))
        if measurement is None or not lifecycle.continues(
            episodes[rule], measurement.period, measurement.budget_version
        ):
            alerts += lifecycle.abandon(episodes.pop(rule), now_ms)
    return alerts


def _spend_evaluations(
    state: State,
    subject: Subject,
    measurements: dict[RuleId, Measurement],
    episodes: Mapping[RuleRef, Episode],
) -> Iterator[Evaluation]:
    """What each budget and limit says now."""
    rules = state.rules
    for rule_id, measurement in measurements.items():
        episode = episodes.get(rule_ref(rule_id))
        if episode is None and measurement.observed <= 0:
            continue
        notified = 0 if episode is None else episode.notified_level
        yield (
            thresholds.evaluate(
                subject, measurement, rules.thresholds_percent, notified, rules.renotify_seconds
            )
            if rule_id in BUDGET_RULES
            else limits.evaluate(subject, measurement, notified, rules.renotify_seconds)
        )


def _store(state: State, scope: str, known: ScopeState, rechecks: Iterable[int]) -> None:
    restricted = known.published is not None and known.published.state is not BreakerState.CLOSED
    firing = any(episode.firing or episode.pending for episode in known.episodes.values())
    by_hand = manual.next_change_ms(known.manual_throttle, known.override, state.now_ms)
    kept = known.policy is not None or known.override is not None or by_hand
    if not kept and not restricted and not firing:
        state.scopes.pop(scope, None)
        state.active.discard(scope)
        return
    due = [recheck_ms for recheck_ms in (*rechecks, by_hand) if recheck_ms]
    if known.published is not None:
        renew_at_ms = desired.renew_at_ms(state.rules.breaker, known.published)
        due += [renew_at_ms] if renew_at_ms else []
    due_ms = min(due, default=0)
    if due_ms and due_ms != known.due_ms:
        heappush(state.timers, (due_ms, scope))
    state.scopes[scope] = replace(known, due_ms=due_ms)
    if restricted or firing:
        state.active.add(scope)
    else:
        state.active.discard(scope)
