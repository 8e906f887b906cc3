"""What the notifier knows of the world: policy, silences, hierarchy, open breakers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from meterline.alerting.notify.core.active import ActiveAlerts
from meterline.alerting.notify.core.decide import RoutingContext
from meterline.alerting.notify.core.labels import labels_of
from meterline.schemas.policy import (
    NOTIFY_ID,
    RULES_ID,
    NotifyPolicy,
    PolicyObject,
    RuleSet,
    ScopePolicy,
)
from meterline.schemas.policy_notify import SILENCE_PREFIX, Silence
from meterline.schemas.throttle import BreakerState, ThrottleCommand

BREAKER_RULE = "breaker"
"""The label `rule` of an open breaker."""


class PolicySnapshot:
    """The newest of control.policies and throttle.commands."""

    def __init__(self) -> None:
        """Know nothing."""
        self.policy = NotifyPolicy()
        self._time_zone = "UTC"
        self._parents: dict[str, str] = {}
        self._silences: dict[str, Silence] = {}
        self._open_until_ms: dict[str, int] = {}

    def fold_policy(self, object_id: str, item: PolicyObject | None) -> bool:
        """Take one policy object in, or its deletion; True if the channels may have changed."""
        if item is None:
            return self._forget(object_id)
        if isinstance(item, NotifyPolicy):
            self.policy = item
            return True
        if isinstance(item, RuleSet):
            self._time_zone = item.time_zone
        elif isinstance(item, ScopePolicy):
            self._parents[item.scope] = item.parent
        elif isinstance(item, Silence):
            self._silences[object_id] = item
        return False

    def fold_command(self, command: ThrottleCommand) -> None:
        """Take one throttle command in: an open breaker lasts until its lease ends."""
        if command.state is BreakerState.OPEN:
            self._open_until_ms[command.scope] = command.expires_at_ms
        else:
            self._open_until_ms.pop(command.scope, None)

    def context(self, active: ActiveAlerts, now_ms: int) -> RoutingContext:
        """What a decision stands on."""

        def sources(scope: str) -> Iterator[Mapping[str, str]]:
            if self._open_until_ms.get(scope, 0) > now_ms:
                yield {"rule": BREAKER_RULE, "state": "open", "severity": "critical"}
            for alert in active.of_scope(scope):
                yield labels_of(alert, self._parents)

        return RoutingContext(
            self.policy, self._parents, self.silences(now_ms), self._time_zone, sources
        )

    def silences(self, now_ms: int) -> list[Silence]:
        """Those that have not ended."""
        found: Iterable[Silence] = self._silences.values()
        return [silence for silence in found if silence.ends_at_ms > now_ms]

    def _forget(self, object_id: str) -> bool:
        if object_id == NOTIFY_ID:
            self.policy = NotifyPolicy()
            return True
        if object_id == RULES_ID:
            self._time_zone = RuleSet().time_zone
        elif object_id.startswith(SILENCE_PREFIX):
            self._silences.pop(object_id, None)
        else:
            self._parents.pop(object_id, None)
        return False
