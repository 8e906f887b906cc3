"""Controllers and gates, around the real engine, restore and gate."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from meterline.alerting.core import engine
from meterline.alerting.core.restore import RestoredState, restore
from meterline.alerting.core.state import (
    AlertSeen,
    CommandSeen,
    Effect,
    Fenced,
    Observation,
    PolicyChanged,
    PublishAlert,
    PublishThrottle,
    Tick,
)
from meterline.alerting.core.takeover import ForeignAlerts
from meterline.relay.decision import GateDecision, GateRequest
from meterline.relay.gate import Gate
from meterline.schemas.alert import Alert, decode_alert, encode_alert
from meterline.schemas.manual import subject_of
from meterline.schemas.policy import PolicyObject, ScopePolicy
from meterline.schemas.scopes import scopes_of
from meterline.schemas.throttle import ThrottleCommand, decode_command, encode_command
from tests.simulation.control_audit import ControlAudit, GateAudit
from tests.simulation.usage_side import Logs


class Policy(NamedTuple):
    """One record of control.policies."""

    object_id: str
    item: PolicyObject | None


@dataclass
class Topics:
    """Policies, commands and alerts, in the order of their logs."""

    audit: ControlAudit
    policies: list[Policy] = field(default_factory=list)
    commands: list[ThrottleCommand] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)

    def append_command(self, writer: int, command: ThrottleCommand) -> None:
        """A controller's command is in the log; as bytes, so that nothing else passes."""
        self.audit.command_written(writer, command)
        self.commands.append(decode_command(encode_command(command)))

    def append_alert(self, writer_read: int, alert: Alert) -> None:
        """A controller's alert is in the log."""
        self.audit.alert_written(writer_read, len(self.alerts), alert)
        self.alerts.append(decode_alert(encode_alert(alert)))

    def append_policy(self, object_id: str, item: PolicyObject | None) -> None:
        """An operator's change is in the log."""
        self.policies.append(Policy(object_id, item))


class Controller:
    """An alerts worker: what it has read, what it knows, and effects still to be carried out."""

    def __init__(self, number: int, logs: Logs, topics: Topics, now_ms: int) -> None:
        self.number = number
        self.logs = logs
        self.topics = topics
        self.fenced = False
        self.effects: deque[Effect] = deque()
        self.policies_read = len(topics.policies)
        self.commands_read = len(topics.commands)
        self.alerts_read = self.alerts_known = len(topics.alerts)
        self.snapshots_read = [len(log) for log in logs.snapshots]
        memory = RestoredState()
        for policy in topics.policies:
            memory.add_policy(*policy)
        for command in topics.commands:
            memory.add_command(command)
        for alert in topics.alerts:
            memory.add_alert(alert)
        for log in logs.snapshots:
            for snapshot in log:
                if snapshot is not None:
                    memory.totals.apply(snapshot)
        self.totals = memory.totals
        self.foreign = ForeignAlerts()
        self.state, effects = restore(memory, now_ms, complete=True)
        self._decided(effects)

    def round(self, now_ms: int, drawn: random.Random, *, all_of_it: bool = False) -> None:
        """Read some of what is new and decide; effects are carried out one by one afterwards."""
        # Timers run before what this round reads is evaluated.
        self.alerts_known = self.alerts_read
        commands = self._commands(all_of_it, drawn)
        policies = self._policies()
        changed: dict[tuple[str, str, int], None] = {}
        behind = False
        for partition, log in enumerate(self.logs.snapshots):
            begin = self.snapshots_read[partition]
            end = len(log) if all_of_it else drawn.randint(begin, len(log))
            behind = behind or end < len(log)
            for snapshot in log[begin:end]:
                window = None if snapshot is None else self.totals.apply(snapshot)
                if window is not None:
                    changed[window] = None
            self.snapshots_read[partition] = end
        self.totals.drop_ended(now_ms)
        seen: list[Observation] = [CommandSeen(command) for command in commands]
        seen += [
            PolicyChanged(name, item, self.totals.of(subject_of(name))) for name, item in policies
        ]
        seen += map(AlertSeen, self._alerts(now_ms))
        seen += self.totals.sums(changed)
        seen.append(Tick(not behind))
        effects: list[Effect] = []
        for observation in seen:
            self.state, found = engine.step(self.state, observation, now_ms)
            effects += found
        self._decided(engine.ordered(effects))

    def _decided(self, effects: Sequence[Effect]) -> None:
        self.effects += effects
        self.foreign.writing(each.alert for each in effects if isinstance(each, PublishAlert))

    def _alerts(self, now_ms: int) -> list[Alert]:
        """Every policy is read before, as the worker sees to when it reads another's alert."""
        for alert in self.topics.alerts[self.alerts_read :]:
            self.foreign.read(alert)
        self.alerts_read = len(self.topics.alerts)
        return self.foreign.take(now_ms)

    def _commands(self, all_of_it: bool, drawn: random.Random) -> list[ThrottleCommand]:
        begin, end = self.commands_read, len(self.topics.commands)
        if not all_of_it:
            end = drawn.randint(begin, end)
        self.commands_read = end
        return self.topics.commands[begin:end]

    def _policies(self) -> list[Policy]:
        begin, self.policies_read = self.policies_read, len(self.topics.policies)
        return self.topics.policies[begin:]

    def step(self) -> str:
        """Carry out the next effect."""
        if not self.effects:
            return "nothing"
        effect = self.effects.popleft()
        match effect:
            case PublishThrottle(command):
                self.topics.append_command(self.number, command)
                return f"command {command.scope} {command.state.value} {command.version}"
            case PublishAlert(alert):
                self.topics.append_alert(self.alerts_known, alert)
                return f"alert {alert.status.value} {alert.dedup_key}"
            case Fenced():
                self.fenced = True
                self.effects.clear()
                return "fenced"


class RelayGate:
    """A relay's gate and how far it has read."""

    def __init__(self, name: str, topics: Topics) -> None:
        self.name = name
        self.topics = topics
        self.skew_ms = 0
        self.start()

    def start(self) -> None:
        """A new process: everything from the beginning, to its end before it serves."""
        self.gate = Gate()
        self.audit = GateAudit()
        self.commands_read = self.policies_read = 0

    def read(self, now_ms: int, count: int = 1_000_000) -> None:
        """Take up to `count` commands and all policies over."""
        for object_id, item in self.topics.policies[self.policies_read :]:
            if isinstance(item, ScopePolicy):
                self.gate.apply_policy(item, now_ms + self.skew_ms)
            elif item is None:
                self.gate.remove_policy(object_id, now_ms + self.skew_ms)
        self.policies_read = len(self.topics.policies)
        for command in self.topics.commands[self.commands_read : self.commands_read + count]:
            applied = self.gate.apply(command, now_ms + self.skew_ms)
            self.audit.applied(self.gate, command, applied)
            self.commands_read += 1
        self.gate.set_ready()

    def decide(self, request: GateRequest, now_ms: int) -> GateDecision:
        """Decide, under the auditor's eyes."""
        at_ms = now_ms + self.skew_ms
        decision = self.gate.decide(request, at_ms)
        scopes = scopes_of(
            request.organisation, request.department, request.project, request.user, request.key
        )
        self.audit.decided(scopes, decision, at_ms)
        return decision
