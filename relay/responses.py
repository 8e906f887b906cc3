"""A rejection as HTTP: status, headers and an RFC 9457 problem document.

SDKs of model providers retry 408, 409, 429 and 5xx by themselves and obey `x-should-retry: false`;
the document therefore carries an `error` member in their form beside the RFC's own. It names
scope, reason, rule and reset time, never amounts: what a department has spent is not for
the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meterline.relay.gate import Admission, GateDecision, GateReason
from meterline.schemas.codec import encode
from meterline.schemas.periods import rfc3339

PROBLEM_TYPES = "https://iana.org/assignments/http-problem-types#"
_QUOTA = (PROBLEM_TYPES + "quota-exceeded", "Quota exceeded")
_RATE_ERROR = "rate_limit_exceeded"

_PROBLEMS: Mapping[GateReason, tuple[str, str]] = {
    GateReason.BLOCKED: _QUOTA,
    GateReason.REQUEST_RATE: _QUOTA,
    GateReason.TOKEN_RATE: _QUOTA,
    GateReason.SPEND_RATE: _QUOTA,
    GateReason.REDUCED_SHARE: _QUOTA,
    GateReason.NOT_READY: (
        PROBLEM_TYPES + "temporary-reduced-capacity",
        "Temporarily reduced capacity",
    ),
    GateReason.DISABLED: ("about:blank", "Forbidden"),
    GateReason.MODEL_NOT_ALLOWED: ("about:blank", "Forbidden"),
    GateReason.INVALID_REQUEST: ("about:blank", "Bad Request"),
}
_ERROR_TYPES: Mapping[GateReason, str] = {
    GateReason.BLOCKED: "budget_exceeded",
    GateReason.REQUEST_RATE: _RATE_ERROR,
    GateReason.TOKEN_RATE: _RATE_ERROR,
    GateReason.SPEND_RATE: _RATE_ERROR,
    GateReason.REDUCED_SHARE: _RATE_ERROR,
    GateReason.NOT_READY: "service_unavailable",
    GateReason.DISABLED: "permission_denied",
    GateReason.MODEL_NOT_ALLOWED: "permission_denied",
    GateReason.INVALID_REQUEST: "invalid_request_error",
}


@dataclass(frozen=True, slots=True)
class HttpRefusal:
    """The response to the caller."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def refusal(decision: GateDecision) -> HttpRefusal:
    """Render a decision that does not admit.

    Args:
        decision: REJECT, or QUEUE when there is no room to queue.

    Raises:
        ValueError: the decision lets the request go out.
    """
    if decision.admission not in {Admission.REJECT, Admission.QUEUE}:
        message = f"nothing to refuse: {decision.admission}"
        raise ValueError(message)
    headers = {"content-type": "application/problem+json"}
    if decision.retry_after_seconds:
        headers["retry-after"] = str(decision.retry_after_seconds)
    if not decision.should_retry:
        headers["x-should-retry"] = "false"
    return HttpRefusal(decision.http_status, headers, _document(decision))


def _document(decision: GateDecision) -> bytes:
    kind, title = _PROBLEMS[decision.reason]
    document: dict[str, object] = {
        "type": kind,
        "title": title,
        "status": decision.http_status,
        "detail": decision.message,
        "reason": decision.reason.value,
    }
    if decision.scope:
        document["scope"] = decision.scope
    if decision.rule:
        document["rule"] = decision.rule
    if decision.reset_at_ms:
        document["reset"] = rfc3339(decision.reset_at_ms)
    document["error"] = {
        "type": _ERROR_TYPES[decision.reason],
        "code": decision.reason.value,
        "message": decision.message,
    }
    return encode(document)
