"""Restore: the engine's state from what the topics hold. Pure.

    control.policies   what holds                        throttle.commands  breakers, (epoch, seq)
    spend.snapshots    what was spent                    alerts             what has been published
Nothing else is kept: no file, no offset. Then every scope is evaluated once, and whatever differs
between what is published and what is right becomes an effect, as if it had just been observed.

Not restored, because a command carries only its most restrictive cause: the hysteresis of a
second, milder budget of the same scope. Its current spend decides its stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from meterline.alerting.core import engine, lifecycle, takeover
from meterline.alerting.core.breaker import Breaker
from meterline.alerting.core.lifecycle import Episode
from meterline.alerting.core.state import Effect, PolicyChanged, PublishAlert, ScopeState, State
from meterline.alerting.core.totals import SpendTotals
from meterline.alerting.rules.history import OPEN_END, SpendHistory
from meterline.alerting.rules.registry import RULES, RuleKinds
from meterline.schemas.alert import Alert, AlertStatus
from meterline.schemas.manual import BudgetOverride, ManualThrottle
from meterline.schemas.periods import HOUR_MS
from meterline.schemas.policy import RULES_ID, PolicyObject, RuleSet, ScopePolicy
from meterline.schemas.rule_ref import BUDGET_RULES, RuleId, RuleRef, parse_rule
from meterline.schemas.spend import decode_stream_state, state_shard
from meterline.schemas.throttle import BreakerState, ThrottleCommand


class RestoredState:
    """Collects the records of the topics, each in the order of its log."""

    def __init__(self, kinds: RuleKinds = RULES) -> None:
        """Start without records."""
        self.kinds = kinds
        self.policies: dict[str, PolicyObject] = {}
        self.totals = SpendTotals()
        self.greatest_epoch = 0
        self._newest: dict[str, ThrottleCommand] = {}
        self._last: dict[str, ThrottleCommand] = {}
        self._episodes: dict[tuple[str, RuleRef], dict[tuple[str, int], Episode]] = {}
        self._states: dict[str, bytes] = {}
        self._incidents: dict[str, dict[str, tuple[int, int]]] = {}

    def add_policy(self, object_id: str, item: PolicyObject | None) -> None:
        """One record of control.policies."""
        if item is None:
            self.policies.pop(object_id, None)
        else:
            self.policies[object_id] = item

    def add_command(self, command: ThrottleCommand) -> None:
        """One record of throttle.commands."""
        if command.issuer != engine.ISSUER:
            return
        self.greatest_epoch = max(self.greatest_epoch, command.epoch)
        self._last[command.scope] = command
        known = self._newest.get(command.scope)
        if known is None or command.version >= known.version:
            self._newest[command.scope] = command

    def add_alert(self, alert: Alert) -> None:
        """One record of alerts."""
        rule = parse_rule(alert.rule_id)
        if not takeover.is_ours(rule, self.kinds):
            return
        if rule.kind in self.kinds.frozen:
            self._add_incident(alert)
        episodes = self._episodes.setdefault((alert.scope, rule), {})
        identity = (alert.period, alert.budget_version)
        episode = lifecycle.recalled(episodes.get(identity), alert)
        if episode.firing or episode.pending:
            # The latest period or version that fired or waits stands last.
            episodes.pop(identity, None)
        episodes[identity] = episode

    def add_state(self, key: bytes | None, value: bytes | None) -> None:
        """One state record of streams; others are passed over. Decoded only when it is needed."""
        shard = state_shard(key)
        if shard and value:
            self._states[shard] = value

    def lanes(self) -> dict[str, int]:
        """When the last batch of each lane came.

        Raises:
            SnapshotError: a state record that streams did not write.
        """
        found: dict[str, int] = {}
        for value in self._states.values():
            for name, lane in decode_stream_state(value).lanes.items():
                found[name] = max(lane.last_ms, found.get(name, 0))
        return found

    def commands(self) -> Mapping[str, ThrottleCommand]:
        """The command in force per scope."""
        return self._newest

    def disordered(self, scope: str) -> bool:
        """Whether the last command of a scope in the log is an older controller's."""
        return self._last[scope] is not self._newest[scope]

    def incidents(self, scope: str) -> tuple[tuple[int, int], ...]:
        """Hours `[first, end)` of a scope in which a deviation fired."""
        return tuple(self._incidents.get(scope, {}).values())

    def _add_incident(self, alert: Alert) -> None:
        known = self._incidents.setdefault(alert.scope, {})
        first = alert.starts_at_ms // HOUR_MS
        match alert.status:
            case AlertStatus.FIRING:
                known.setdefault(alert.dedup_key, (first, OPEN_END))
            case AlertStatus.RESOLVED:
                end = max(first + 1, alert.ends_at_ms // HOUR_MS)
                known[alert.dedup_key] = (first, end)
            case AlertStatus.PENDING | AlertStatus.INACTIVE:
                pass

    def episodes(self) -> Mapping[tuple[str, RuleRef], Mapping[tuple[str, int], Episode]]:
        """The episodes of each scope and rule, in the order of their last firing."""
        return self._episodes


def restore(
    restored: RestoredState, now_ms: int, *, complete: bool
) -> tuple[State, tuple[Effect, ...]]:
    """Build the state and say what must be published to make the topics right.

    Args:
        restored: the topics, read to their ends.
        now_ms: the current time.
        complete: whether spend.snapshots was read to its end.

    Every restriction in force is published again, even unchanged: its lease is renewed, and the
    new epoch on the topic makes a controller that was replaced stop.
    """
    rules = restored.policies.get(RULES_ID)
    state = engine.start(
        next_epoch(restored.greatest_epoch, now_ms),
        rules if isinstance(rules, RuleSet) else RuleSet(),
        now_ms,
        restored.kinds,
    )
    state.complete = complete
    state.alive |= restored.totals.hours_seen()
    effects: list[Effect] = list(_recall_alerts(state, restored, now_ms))
    for scope, command in restored.commands().items():
        known = state.scopes.get(scope, ScopeState())
        state.scopes[scope] = replace(known, published=command, breakers=_breakers(command))
    _recall_manual(state, restored)
    evaluated: set[str] = set()
    for object_id, item in restored.policies.items():
        if isinstance(item, ScopePolicy):
            spend = restored.totals.of(item.scope)
            state.histories[item.scope] = SpendHistory(incidents=restored.incidents(item.scope))
            observed = PolicyChanged(object_id, item, spend)
            state, found = engine.step(state, observed, now_ms)
            effects += found
            evaluated.add(item.scope)
    for scope in sorted(set(state.scopes) - evaluated):
        effects += engine.evaluate_scope(state, scope)
    for scope, command in sorted(restored.commands().items()):
        published = state.scopes[scope].published if scope in state.scopes else None
        restricts = command.state is not BreakerState.CLOSED
        if published is command and (restricts or restored.disordered(scope)):
            effects += engine.evaluate_scope(state, scope, renew=True)
    return state, engine.ordered(effects)


def next_epoch(greatest: int, now_ms: int) -> int:
    """Above every epoch on the topic; and above those of a topic that was lost.

    Relays outlive the embedded broker's topics: counting from 1 again, they would refuse all.
    """
    return max(greatest + 1, now_ms // 1000)


def _recall_alerts(state: State, restored: RestoredState, now_ms: int) -> list[Effect]:
    """Give each rule its latest episode; alerts left firing in earlier ones are resolved."""
    effects: list[Effect] = []
    for (scope, rule), by_identity in restored.episodes().items():
        *earlier, latest = by_identity.values()
        for episode in earlier:
            effects += [PublishAlert(alert) for alert in lifecycle.abandon(episode, now_ms)]
        takeover.put_episode(state, scope, rule, latest)
    return effects


def _recall_manual(state: State, restored: RestoredState) -> None:
    """Before the first evaluation, which would otherwise release what an operator has blocked."""
    for item in restored.policies.values():
        if isinstance(item, ManualThrottle | BudgetOverride):
            engine.set_manual(state, item)


def _breakers(command: ThrottleCommand) -> dict[RuleId, Breaker]:
    evidence = command.evidence
    if evidence is None or evidence.rule_id not in BUDGET_RULES:
        return {}
    breaker = Breaker(command.state, command.issued_at_ms, evidence.period, evidence.budget_version)
    return {RuleId(evidence.rule_id): breaker}
