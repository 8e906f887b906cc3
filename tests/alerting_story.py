"""Stories about alerting: time, policy and spend in, commands and alerts out; a fake clock.

    story = Scenario("2026-10-05T12:00:00Z")
    story.policy(RESEARCH, month="100")
    story.spend(RESEARCH, "80")
    assert story.state_of(RESEARCH) is BreakerState.THROTTLED
    story.wait_until("2026-11-01T00:00:00Z")

Everything runs through the real engine and the real totals, in process and in milliseconds.
"""

from __future__ import annotations

from collections import Counter

from meterline.alerting.core import engine
from meterline.alerting.core.restore import RestoredState, restore
from meterline.alerting.core.state import (
    CommandSeen,
    Effect,
    Fenced,
    Observation,
    PolicyChanged,
    PublishAlert,
    PublishThrottle,
    State,
    Tick,
)
from meterline.alerting.core.totals import SpendTotals
from meterline.schemas.alert import Alert, AlertStatus
from meterline.schemas.money import nano_from_usd
from meterline.schemas.periods import Calendar, parse_rfc3339
from meterline.schemas.policy import RULES_ID, BreakerPolicy, Budget, Limits, RuleSet, ScopePolicy
from meterline.schemas.spend import SnapshotKey, SpendSnapshot, Totals
from meterline.schemas.throttle import BreakerState, ThrottleCommand

RESEARCH = "department:acme/research"
KEY = "key:acme/k-17"


def nano(usd: str | None) -> int | None:
    """Dollars of a story as nano-USD."""
    return None if usd is None else nano_from_usd(usd)


class Scenario:
    """One engine, its totals, its log of commands and alerts, and a clock that the test moves."""

    def __init__(self, start: str, *, complete: bool = True, zone: str = "UTC") -> None:
        self.now_ms = parse_rfc3339(start)
        self.calendar = Calendar(zone)
        self.rules = RuleSet(time_zone=zone)
        self.state: State = engine.start(1, self.rules, self.now_ms)
        self.totals = SpendTotals()
        self.policies: dict[str, ScopePolicy] = {}
        self.commands: list[ThrottleCommand] = []
        self.alerts: list[Alert] = []
        self.fences: list[Fenced] = []
        self.records: list[SpendSnapshot] = []
        self._spent: Counter[tuple[str, str, int, str, str]] = Counter()
        self._offset = 0
        self.complete = complete
        self.step(Tick(complete))

    def step(self, observation: Observation) -> tuple[Effect, ...]:
        """One observation at the story's present."""
        self.state, effects = engine.step(self.state, observation, self.now_ms)
        self._keep(effects)
        return effects

    def policy(
        self,
        scope: str,
        *,
        month: str | None = None,
        day: str | None = None,
        limits: Limits | None = None,
        version: int = 1,
    ) -> None:
        """Write a scope's policy."""
        budget = Budget(month_nano_usd=nano(month), day_nano_usd=nano(day))
        policy = ScopePolicy(
            scope=scope, budget=budget, limits=limits or Limits(), budget_version=version
        )
        self.policies[scope] = policy
        self.step(PolicyChanged(scope, policy, self.totals.of(scope)))

    def drop_policy(self, scope: str) -> None:
        """Delete a scope's policy."""
        del self.policies[scope]
        self.step(PolicyChanged(scope, None))

    def rule(self, *, thresholds: tuple[int, ...] | None = None, **breaker: int | bool) -> None:
        """Change the rules of all scopes."""
        changes: dict[str, object] = {"breaker": BreakerPolicy.model_validate(breaker)}
        if thresholds is not None:
            changes["thresholds_percent"] = thresholds
        self.rules = self.rules.model_copy(update=changes)
        self.step(PolicyChanged(RULES_ID, self.rules))

    def spend(
        self,
        scope: str,
        usd: str,
        *,
        at: str | None = None,
        tokens: int = 0,
        shard: str = "0",
    ) -> None:
        """Count an event, in the windows that hold its time, and pass it to the engine."""
        event_ms = self.now_ms if at is None else parse_rfc3339(at)
        self._offset += 1
        for window in self.calendar.windows(event_ms):
            name = (scope, window.kind.value, window.start_ms, shard)
            self._spent[*name, "cost"] += nano_from_usd(usd)
            self._spent[*name, "tokens"] += tokens
            key = SnapshotKey(*name)
            totals = Totals(
                epoch=0,
                offset=self._offset,
                end_ms=window.end_ms,
                cost_nano_usd=self._spent[*name, "cost"],
                input_tokens=self._spent[*name, "tokens"],
                output_tokens=0,
                cache_read_tokens=0,
                cache_write_tokens=0,
                reasoning_tokens=0,
                events=1,
                unpriced_events=0,
                last_event_ms=event_ms,
            )
            self.see(SpendSnapshot(key, totals))

    def see(self, snapshot: SpendSnapshot) -> None:
        """A record of spend.snapshots."""
        self.records.append(snapshot)
        window = self.totals.apply(snapshot)
        if window is not None:
            for total in self.totals.sums([window]):
                self.step(total)

    def see_command(self, command: ThrottleCommand) -> None:
        """A record of throttle.commands."""
        self.step(CommandSeen(command))

    def wait(self, seconds: int) -> None:
        """Let time pass, with every timer at its time."""
        self._advance(self.now_ms + seconds * 1000)

    def wait_until(self, moment: str) -> None:
        """Let time pass until then, with every timer at its time."""
        self._advance(parse_rfc3339(moment))

    def set_complete(self, *, complete: bool) -> None:
        """Say whether the snapshots were read to their end."""
        self.complete = complete
        self.step(Tick(complete))

    def restart(self, *, alerts: list[Alert] | None = None, complete: bool = True) -> list[Effect]:
        """Forget everything but the topics; the effects of starting again."""
        memory = RestoredState()
        memory.add_policy(RULES_ID, self.rules)
        for scope, policy in self.policies.items():
            memory.add_policy(scope, policy)
        for command in self.commands:
            memory.add_command(command)
        for alert in self.alerts if alerts is None else alerts:
            memory.add_alert(alert)
        for snapshot in self.records:
            memory.totals.apply(snapshot)
        self.state, effects = restore(memory, self.now_ms, complete=complete)
        self.totals = memory.totals
        self._keep(effects)
        return list(effects)

    def state_of(self, scope: str) -> BreakerState:
        """What the newest command asks for."""
        newest = [command for command in self.commands if command.scope == scope]
        return newest[-1].state if newest else BreakerState.CLOSED

    def last(self, scope: str) -> ThrottleCommand:
        """The newest command of a scope."""
        return [command for command in self.commands if command.scope == scope][-1]

    def fired(self, scope: str) -> list[int]:
        """Thresholds notified, in order."""
        return [
            alert.threshold
            for alert in self.alerts
            if alert.scope == scope and alert.status is AlertStatus.FIRING
        ]

    def still_firing(self) -> set[str]:
        """Dedup keys of alerts that were not resolved."""
        firing: set[str] = set()
        for alert in self.alerts:
            if alert.status is AlertStatus.FIRING:
                firing.add(alert.dedup_key)
            else:
                firing.discard(alert.dedup_key)
        return firing

    def _advance(self, until_ms: int) -> None:
        while engine.next_timer(self.state) <= until_ms:
            self.now_ms = max(self.now_ms, engine.next_timer(self.state))
            before = engine.next_timer(self.state)
            self.step(Tick(self.complete))
            assert engine.next_timer(self.state) > before, "a timer that does not move"
        self.now_ms = until_ms
        self.step(Tick(self.complete))

    def _keep(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case PublishThrottle(command):
                    self.commands.append(command)
                case PublishAlert(alert):
                    self.alerts.append(alert)
                case Fenced():
                    self.fences.append(effect)
