"""The gate's request and decision."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec


class Admission(StrEnum):
    """What the relay is to do with the request."""

    ADMIT = "admit"
    REJECT = "reject"
    QUEUE = "queue"
    """Hold it and decide again after `retry_after_seconds`, or reject it if there is no room."""
    REDIRECT = "redirect"
    """Send it to `fallback_model` instead; this is its admission, it is not decided again."""


class GateReason(StrEnum):
    """Why the gate decided so."""

    ADMITTED = "admitted"
    INVALID_REQUEST = "invalid_request"
    """An organisation, department, project, user or key that no scope can name."""
    NOT_READY = "not_ready"
    """The commands are not read to their end, and policy says to fail closed."""
    DISABLED = "disabled"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    BLOCKED = "blocked"
    """The breaker is open; `rule` says why."""
    REQUEST_RATE = "request_rate"
    TOKEN_RATE = "token_rate"  # noqa: S105 - no password
    SPEND_RATE = "spend_rate"
    REDUCED_SHARE = "reduced_share"
    """Only a share of the scope's requests is admitted, and this is not one of them."""


class GateRequest(NamedTuple):
    """The caller and the model it asks for; an empty field means none."""

    organisation: str
    key: str
    model: str
    department: str = ""
    project: str = ""
    user: str = ""


class GateDecision(msgspec.Struct, frozen=True, gc=False):
    """The gate's answer."""

    admission: Admission
    reason: GateReason
    scope: str = ""
    """The scope that decided; empty when admitted."""
    rule: str = ""
    """`policy`, or the reason code of the throttle command."""
    http_status: int = 0
    """For a rejection, and for a queued request that cannot be queued; 0 otherwise."""
    retry_after_seconds: int = 0
    """0: nothing is known, or waiting does not help."""
    should_retry: bool = True
    fallback_model: str = ""
    reset_at_ms: int = 0
    """When the cause ends by itself; 0 when it does not or the end is unknown."""

    @property
    def message(self) -> str:
        """One sentence for the caller; it names no amounts."""
        return _SENTENCES[self.reason].format(scope=self.scope)


_SENTENCES = {
    GateReason.ADMITTED: "admitted",
    GateReason.INVALID_REQUEST: "organisation, department, project, user or key is not valid",
    GateReason.NOT_READY: "{scope}: limits are not known yet, try again shortly",
    GateReason.DISABLED: "{scope} is disabled",
    GateReason.MODEL_NOT_ALLOWED: "{scope} may not use this model",
    GateReason.BLOCKED: "{scope} is blocked until its budget or limit allows more",
    GateReason.REQUEST_RATE: "{scope} has reached its rate of requests",
    GateReason.TOKEN_RATE: "{scope} has reached its rate of tokens",
    GateReason.SPEND_RATE: "{scope} has reached its rate of spend",
    GateReason.REDUCED_SHARE: "{scope} is throttled",
}
