"""Where an alert would go by the published policy: the notify worker's own routing decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meterline.alerting.notify.core.active import ActiveAlerts
from meterline.alerting.notify.core.decide import RoutingContext
from meterline.alerting.notify.core.policy_snapshot import PolicySnapshot
from meterline.backends.kafka.config import KafkaConfig
from meterline.backends.kafka.reader import READ_SECONDS_MAX, TopicReader
from meterline.control.store import read_policies
from meterline.schemas.alert import Alert, AlertError, AlertStatus, RuleType, Severity, decode_alert
from meterline.schemas.policy import PolicyObject
from meterline.schemas.rule_ref import parse_rule
from meterline.schemas.scopes import parse_scope
from meterline.schemas.throttle import ThrottleCommand, ThrottleError, decode_command
from meterline.schemas.topics import Topic


def sample_alert(scope: str, rule: str, severity: Severity, window: str, at_ms: int) -> Alert:
    """An alert to ask about.

    Raises:
        ScopeError: no scope.
    """
    parse_scope(scope)
    kind = parse_rule(rule).kind
    return Alert(
        id="question",
        dedup_key=f"{rule}/question/{scope}",
        rule_id=rule,
        rule_type=RuleType(kind) if kind in RuleType.__members__.values() else RuleType.LIMIT,
        status=AlertStatus.FIRING,
        severity=severity,
        scope=scope,
        window=window,
        period="",
        threshold=0,
        unit="percent",
        observed=0,
        limit=0,
        percent=0,
        summary="",
        starts_at_ms=at_ms,
    )


def routing_context(
    policies: Mapping[str, PolicyObject],
    at_ms: int,
    commands: Iterable[ThrottleCommand] = (),
    active: ActiveAlerts | None = None,
) -> RoutingContext:
    """What the worker would decide by."""
    snapshot = PolicySnapshot()
    for name, item in policies.items():
        snapshot.fold_policy(name, item)
    for command in commands:
        snapshot.fold_command(command)
    return snapshot.context(active or ActiveAlerts(), at_ms)


def published_routing_context(config: KafkaConfig, at_ms: int) -> RoutingContext:
    """What the worker decides by now.

    Raises:
        KafkaClientError: the topics could not be read.
    """
    policies = read_policies(config)
    commands: list[ThrottleCommand] = []
    active = ActiveAlerts()
    reader = TopicReader(config, [Topic.THROTTLE_COMMANDS, Topic.ALERTS])
    try:
        for record in reader.read_to_end(READ_SECONDS_MAX):
            try:
                if record.value is None:
                    continue
                if record.topic == Topic.ALERTS:
                    active.fold(decode_alert(record.value), record.offset)
                else:
                    commands.append(decode_command(record.value))
            except (AlertError, ThrottleError):
                continue  # the workers log it
    finally:
        reader.close()
    return routing_context(policies, at_ms, commands, active)
