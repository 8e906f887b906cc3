"""What must be notified and commanded, in plain dictionaries.

Spend only grows here, so what a scope deserves follows from its totals alone: the stage of each
budget, whether each limit is reached, and which thresholds have been crossed in this period.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from meterline.relay.decision import Admission, GateDecision
from meterline.relay.gate import Gate
from meterline.schemas.alert import Alert, AlertStatus
from meterline.schemas.periods import HOUR_MS, WindowKind
from meterline.schemas.policy import RuleSet, ScopePolicy
from meterline.schemas.throttle import Applied, BreakerState, OnExpiry, ThrottleCommand
from tests.simulation.ledger_audit import AuditError, Sums
from tests.streams_model import CALENDAR

SKEW_MS = 30_000
_STRICTNESS = list(BreakerState)
# Thresholds and absolute limits are alerts of rules of these names; others are their own.
BUDGET_RULES = {"budget_month": WindowKind.MONTH, "budget_day": WindowKind.DAY}
LIMIT_RULES = {
    "hour_spend": WindowKind.HOUR,
    "day_spend": WindowKind.DAY,
    "day_tokens": WindowKind.DAY,
}


class Bound(NamedTuple):
    """One budget or limit of a scope, as the policy says it."""

    rule_id: str
    kind: WindowKind
    limit: int
    tokens: bool = False


def bounds_of(policy: ScopePolicy) -> list[Bound]:
    """Every bound that a policy sets."""
    budget, limits = policy.budget, policy.limits
    named = (
        ("budget_month", WindowKind.MONTH, budget.month_nano_usd),
        ("budget_day", WindowKind.DAY, budget.day_nano_usd),
        ("hour_spend", WindowKind.HOUR, limits.hour_spend_nano_usd),
        ("day_spend", WindowKind.DAY, limits.day_spend_nano_usd),
        ("day_tokens", WindowKind.DAY, limits.day_tokens),
    )
    return [
        Bound(rule_id, kind, limit, rule_id == "day_tokens")
        for rule_id, kind, limit in named
        if limit is not None
    ]


class NotifiedAlert(NamedTuple):
    """One firing alert: who wrote it, where, and what that writer had read before it began."""

    alert: Alert
    position: int
    writer_read: int


class ControlAudit:
    """The truth about alerts, commands and gates."""

    def __init__(self) -> None:
        self.notified: dict[tuple[str, str, str, int], list[NotifiedAlert]] = defaultdict(list)
        """By scope, rule, period and budget version."""
        self.firing: dict[str, Alert] = {}
        self._alerts: dict[str, NotifiedAlert] = {}
        self._fired: dict[str, int] = {}
        """Where each alert last fired."""
        self._seqs: dict[int, int] = {}
        self._versions: dict[tuple[int, int], ThrottleCommand] = {}
        self.newest: dict[str, ThrottleCommand] = {}
        self.overspend_nano_usd = 0
        """The most that any scope went over a bound."""

    # -- what controllers write

    def command_written(self, writer: int, command: ThrottleCommand) -> None:
        """Versions of one controller rise; no two commands share one, twins apart."""
        if command.seq <= self._seqs.get(writer, 0):
            raise AuditError(f"controller {writer} went back to {command.version}")
        self._seqs[writer] = command.seq
        known = self.newest.get(command.scope)
        if known is None or command.version > known.version:
            self.newest[command.scope] = command

    def alert_written(self, writer_read: int, position: int, alert: Alert) -> None:
        """No controller notifies of what it could know was notified."""
        before = self._alerts.get(alert.id)
        if before is not None and before.position < writer_read:
            # An alert that a replaced controller wrote after its resolution is resolved again.
            fired = self._fired.get(alert.dedup_key, -1)
            if alert.status is AlertStatus.FIRING or fired < before.position:
                raise AuditError(f"{alert.status} notified twice: {alert.dedup_key}")
            self._alerts.pop(alert.id)
        notified = NotifiedAlert(alert, position, writer_read)
        self._alerts.setdefault(alert.id, notified)
        if alert.status is AlertStatus.RESOLVED:
            self.firing.pop(alert.dedup_key, None)
            return
        self.firing[alert.dedup_key] = alert
        self._fired[alert.dedup_key] = position
        if alert.rule_id not in BUDGET_RULES and alert.rule_id not in LIMIT_RULES:
            return
        identity = (alert.scope, alert.rule_id, alert.period, alert.budget_version)
        here = {alert.threshold, *alert.also_crossed}
        for one in self.notified[identity]:
            again = here & {one.alert.threshold, *one.alert.also_crossed}
            if again and one.position < writer_read and one.alert.id != alert.id:
                raise AuditError(f"{identity}: {sorted(again)} notified twice")
        self.notified[identity].append(notified)

    # -- after everything was drained

    def settled(
        self,
        policy: ScopePolicy,
        spent: dict[WindowKind, Sums],
        rules: RuleSet,
        now_ms: int,
        by_hand: BreakerState,
    ) -> BreakerState:
        """Check what was notified and commanded of one scope; answer the state that it must be in."""
        deserved = by_hand
        for bound in bounds_of(policy):
            cost, input_tokens, output_tokens, _, _ = spent[bound.kind]
            observed = input_tokens + output_tokens if bound.tokens else cost
            state = self._deserves(bound, observed, rules)
            deserved = max(deserved, state, key=_STRICTNESS.index)
            self._check_notified(policy, bound, observed, rules, now_ms)
            if not bound.tokens:
                over = observed - bound.limit
                self.overspend_nano_usd = max(self.overspend_nano_usd, over)
        command = self.newest.get(policy.scope)
        state = BreakerState.CLOSED if command is None else command.state
        if state is not deserved:
            raise AuditError(f"{policy.scope}: commanded {state}, deserved {deserved}: {spent}")
        expires_at_ms = 0 if command is None else command.expires_at_ms
        if state is not BreakerState.CLOSED and expires_at_ms <= now_ms:
            raise AuditError(f"{policy.scope}: the lease of {state} was left to end")
        return deserved

    def _deserves(self, bound: Bound, observed: int, rules: RuleSet) -> BreakerState:
        if bound.rule_id in LIMIT_RULES:
            return BreakerState.OPEN if observed >= bound.limit else BreakerState.CLOSED
        breaker = rules.breaker
        stages = (
            (breaker.open_at_percent, BreakerState.OPEN),
            (breaker.half_open_at_percent, BreakerState.HALF_OPEN),
            (breaker.throttle_at_percent, BreakerState.THROTTLED),
        )
        return next(
            (state for percent, state in stages if observed * 100 >= percent * bound.limit),
            BreakerState.CLOSED,
        )

    def _check_notified(
        self, policy: ScopePolicy, bound: Bound, observed: int, rules: RuleSet, now_ms: int
    ) -> None:
        period = CALENDAR.period(CALENDAR.window(bound.kind, now_ms))
        identity = (policy.scope, bound.rule_id, period, policy.budget_version)
        notified: set[int] = set()
        for one in self.notified[identity]:
            notified |= {one.alert.threshold, *one.alert.also_crossed}
        if bound.rule_id in LIMIT_RULES:
            wanted = {bound.limit} if observed >= bound.limit else set()
        else:
            crossed = rules.thresholds_percent
            wanted = {percent for percent in crossed if observed * 100 >= percent * bound.limit}
        if notified != wanted:
            raise AuditError(f"{identity}: notified {sorted(notified)}, crossed {sorted(wanted)}")

    def check_firing(self, policies: dict[str, ScopePolicy], now_ms: int) -> None:
        """What still fires is of the current period and budget version."""
        kinds = {**BUDGET_RULES, **LIMIT_RULES}
        for alert in self.firing.values():
            if alert.rule_id not in kinds:
                continue
            policy = policies.get(alert.scope)
            period = CALENDAR.period(CALENDAR.window(kinds[alert.rule_id], now_ms))
            version = policy.budget_version if policy is not None else None
            if alert.period != period or alert.budget_version != version:
                raise AuditError(f"{alert.dedup_key} still fires in {period}, version {version}")


class GateAudit:
    """What one life of one gate was notified, and what it may therefore do."""

    def __init__(self) -> None:
        self.commands: dict[str, ThrottleCommand] = {}
        """The newest of each scope by version."""
        self._ended: dict[str, tuple[int, int]] = {}
        """Per scope: when an open breaker's lease was first seen over, and admissions since."""

    def applied(self, gate: Gate, command: ThrottleCommand, applied: Applied) -> None:
        """A command is taken over exactly if it is newer than all before."""
        known = self.commands.get(command.scope)
        newer = known is None or command.version > known.version
        if newer is (applied is Applied.STALE):
            have = None if known is None else known.version
            raise AuditError(f"{command.scope} {command.version} was {applied}, had {have}")
        if newer:
            self.commands[command.scope] = command
            self._ended.pop(command.scope, None)
        if gate.version(command.scope) != self.commands[command.scope].version:
            raise AuditError(f"{command.scope}: the gate is at {gate.version(command.scope)}")

    def decided(self, scopes: tuple[str, ...], decision: GateDecision, now_ms: int) -> None:
        """Nothing passes an open breaker, and little passes one whose controller is dead."""
        if decision.admission is not Admission.ADMIT:
            return
        for scope in scopes:
            command = self.commands.get(scope)
            if command is None or command.state is not BreakerState.OPEN:
                continue
            if now_ms < command.expires_at_ms + SKEW_MS:
                raise AuditError(f"{scope} is open until {command.expires_at_ms}, admitted")
            if command.on_expiry is OnExpiry.HOLD:
                if now_ms < command.reset_at_ms:
                    raise AuditError(f"{scope} is blocked by hand until {command.reset_at_ms}")
            elif now_ms < command.reset_at_ms:
                self._admitted_degraded(scope, command, now_ms)

    def _admitted_degraded(self, scope: str, command: ThrottleCommand, now_ms: int) -> None:
        """A tenth of the even share per hour: after each request the bucket must fill again."""
        since_ms, count = self._ended.get(scope, (command.expires_at_ms + SKEW_MS, 0))
        self._ended[scope] = (since_ms, count + 1)
        cap = command.degrade_nano_usd_per_hour
        if not cap:
            return
        # Each request takes at least what the cheapest costs; a debt is at most 60 hours' worth.
        paid = min(CHEAPEST_NANO_USD, 60 * cap)
        hours = (now_ms - since_ms) // HOUR_MS + 2
        if count > 1 + hours * cap // paid:
            raise AuditError(f"{scope}: {count} requests in {hours} h after the lease, cap {cap}")


CHEAPEST_NANO_USD = 50 * 1_000_003
