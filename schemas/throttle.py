"""Throttle commands and acknowledgements: the full desired state of one scope, as a lease.

A relay applies a command only if its (epoch, seq) is greater than the one it has; a command that
was never renewed ends at `expires_at_ms` by itself, as `on_expiry` defines.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meterline.schemas.errors import MeterlineError


class BreakerState(StrEnum):
    """The staged breaker, least restrictive first."""

    CLOSED = "closed"
    THROTTLED = "throttled"
    HALF_OPEN = "half_open"
    OPEN = "open"


class ThrottleMode(StrEnum):
    """What a relay does with a request that is not admitted."""

    REJECT = "reject"
    QUEUE = "queue"
    REDIRECT = "redirect"


class OnExpiry(StrEnum):
    """What applies when a lease ends without having been renewed."""

    RELEASE = "release"
    """Soft throttles fail open: back to the policy's own limits."""
    DEGRADE = "degrade"
    """Budget blocks fall back to `degrade_percent` of the base limits and a local money cap."""
    HOLD = "hold"
    """Manual blocks stay, for at most HOLD_MS_MAX after the lease's end."""


BUDGET_EXHAUSTED = "budget_exhausted"
BUDGET_THROTTLED = "budget_throttled"
BUDGET_REASONS = frozenset({BUDGET_EXHAUSTED, BUDGET_THROTTLED})
"""Reason codes of commands that a budget causes."""
HOLD_MS_MAX = 24 * 3_600_000


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ThrottleLimits(_Wire):
    """Absolute limits; None means that the policy's own limit applies.

    Never a factor of the current limit: a factor applied twice compounds.
    """

    requests_per_minute: int | None = Field(default=None, ge=0)
    tokens_per_minute: int | None = Field(default=None, ge=0)
    burst_requests: int | None = Field(default=None, ge=0)
    nano_usd_per_minute: int | None = Field(default=None, ge=0)


class Evidence(_Wire):
    """The numbers a decision stood on."""

    rule_id: str
    window: str
    """Window kind: hour, day or month."""
    period: str
    """The window's name: 2026-10."""
    observed: int
    limit: int
    unit: str
    """nano_usd or tokens."""
    percent: int
    """floor(100 * observed / limit)."""
    budget_version: int = 0
    source_offset: str = ""
    """shard:offset pairs the observation was made of, for the event trace."""


class ThrottleCommand(_Wire):
    """The desired state of one scope; the record key is `scope`."""

    scope: str
    epoch: int = Field(ge=0)
    """Generation of the controller (fencing token): a restarted controller has a greater one."""
    seq: int = Field(ge=0)
    state: BreakerState
    mode: ThrottleMode = ThrottleMode.REJECT
    admit_percent: int = Field(default=100, ge=0, le=100)
    """Share of requests admitted, by a deterministic spread, where the policy has no rate limit
    that could be reduced; 0 when open."""
    limits: ThrottleLimits = ThrottleLimits()
    fallback_model: str = ""
    reason: str
    """A sentence for the caller and the operator."""
    reason_code: str
    """budget_exhausted, budget_throttled, hour_spend, day_spend, day_tokens, manual, released."""
    http_status: int = 429
    evidence: Evidence | None = None
    issued_at_ms: int
    expires_at_ms: int
    reset_at_ms: int = 0
    """When the cause ends by itself (the end of the period); Retry-After is made of it."""
    on_expiry: OnExpiry = OnExpiry.RELEASE
    degrade_percent: int = Field(default=10, ge=0, le=100)
    degrade_nano_usd_per_hour: int = Field(default=0, ge=0)
    issuer: str = "alerts"

    @property
    def version(self) -> tuple[int, int]:
        """(epoch, seq): greater wins."""
        return (self.epoch, self.seq)


class Applied(StrEnum):
    """What a relay did with a command."""

    ACCEPTED = "accepted"
    STALE = "stale"
    """(epoch, seq) not greater than the one in force."""
    EXPIRED = "expired"
    MALFORMED = "malformed"


class ThrottleAck(_Wire):
    """A relay's word that a command is in force; the record key is relay and scope."""

    relay: str
    scope: str
    epoch: int
    seq: int
    applied: Applied
    at_ms: int


class ThrottleError(MeterlineError, ValueError):
    """A record that is no throttle command or acknowledgement."""


def encode_command(command: ThrottleCommand) -> bytes:
    """The record value."""
    return command.model_dump_json().encode()


def decode_command(value: bytes) -> ThrottleCommand:
    """Read one record value; ThrottleError if it is not one."""
    try:
        return ThrottleCommand.model_validate_json(value)
    except ValidationError as error:
        message = f"not a throttle command: {error.error_count()} errors"
        raise ThrottleError(message) from error


def ack_key(relay: str, scope: str) -> bytes:
    """The record key of an acknowledgement."""
    return f"{relay} {scope}".encode()


def encode_ack(ack: ThrottleAck) -> bytes:
    """The record value."""
    return ack.model_dump_json().encode()


def decode_ack(value: bytes) -> ThrottleAck:
    """Read one record value; ThrottleError if it is not one."""
    try:
        return ThrottleAck.model_validate_json(value)
    except ValidationError as error:
        message = f"not a throttle acknowledgement: {error.error_count()} errors"
        raise ThrottleError(message) from error
