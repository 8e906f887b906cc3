"""Alerts: one (scope, rule, threshold, period, budget version), firing or resolved."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, ValidationError


class Severity(StrEnum):
    """How loudly, quietest first."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class AlertStatus(StrEnum):
    """Where an alert stands."""

    FIRING = "firing"
    RESOLVED = "resolved"


class RuleType(StrEnum):
    """The family of the rule that speaks."""

    THRESHOLD = "threshold"
    LIMIT = "limit"
    BREAKER = "breaker"
    PIPELINE = "pipeline"


class Alert(BaseModel):
    """One state change of one alert; the record key is `dedup_key`.

    Money is integer nano-USD here and a decimal string where it leaves for a receiver.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    """Same for the firing and every repetition of it, other for the resolution: made of the dedup
    key and the status, so that a replay gives the same id."""
    dedup_key: str
    """rule/threshold/scope/period/budget version."""
    rule_id: str
    rule_type: RuleType
    status: AlertStatus
    severity: Severity
    scope: str
    window: str
    period: str
    threshold: int
    """In `unit`: percent for thresholds, nano_usd or tokens for limits."""
    unit: str
    observed: int
    """nano_usd or tokens spent in the window."""
    limit: int
    """The budget or limit, nano_usd or tokens."""
    percent: int
    budget_version: int = 0
    also_crossed: tuple[int, ...] = ()
    """Lower thresholds crossed by the same observation; they are not told separately."""
    summary: str
    starts_at_ms: int
    ends_at_ms: int = 0
    reset_at_ms: int = 0
    commands: tuple[str, ...] = ()
    """scope@epoch.seq of the throttle commands given for the same cause."""


class AlertError(ValueError):
    """A record that is no alert."""


def encode_alert(alert: Alert) -> bytes:
    """The record value."""
    return alert.model_dump_json().encode()


def decode_alert(value: bytes) -> Alert:
    """Read one record value; AlertError if it is not one."""
    try:
        return Alert.model_validate_json(value)
    except ValidationError as error:
        message = f"not an alert: {error.error_count()} errors"
        raise AlertError(message) from error
