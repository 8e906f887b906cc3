"""Refusals as HTTP."""

from __future__ import annotations

import json

import pytest

from meterline.relay.gate import Admission, GateDecision, GateReason
from meterline.relay.responses import refusal

RESET = 1_764_547_200_000


def test_exhausted_budget() -> None:
    """An exhausted budget says when it ends, and that SDKs must not try again by themselves."""
    answer = refusal(
        GateDecision(
            Admission.REJECT,
            GateReason.BLOCKED,
            scope="department:acme/research",
            rule="budget_exhausted",
            http_status=402,
            retry_after_seconds=3600,
            should_retry=False,
            reset_at_ms=RESET,
        )
    )
    assert answer.status == 402
    assert answer.headers == {
        "content-type": "application/problem+json",
        "retry-after": "3600",
        "x-should-retry": "false",
    }
    assert json.loads(answer.body) == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Quota exceeded",
        "status": 402,
        "detail": "department:acme/research is blocked until its budget or limit allows more",
        "reason": "blocked",
        "scope": "department:acme/research",
        "rule": "budget_exhausted",
        "reset": "2025-12-01T00:00:00.000Z",
        "error": {
            "type": "budget_exceeded",
            "code": "blocked",
            "message": "department:acme/research is blocked until its budget or limit allows more",
        },
    }


def test_rate_may_be_retried() -> None:
    """A rate says how long to wait and leaves retrying to the SDK."""
    answer = refusal(
        GateDecision(
            Admission.QUEUE,
            GateReason.REQUEST_RATE,
            scope="key:acme/k",
            rule="policy",
            http_status=429,
            retry_after_seconds=2,
        )
    )
    assert (answer.status, answer.headers["retry-after"]) == (429, "2")
    assert "x-should-retry" not in answer.headers
    assert json.loads(answer.body)["error"]["type"] == "rate_limit_exceeded"


@pytest.mark.parametrize("reason", [each for each in GateReason if each != GateReason.ADMITTED])
def test_every_reason_can_be_explained(reason: GateReason) -> None:
    """Each reason has a problem type, an SDK's error type and a sentence with the scope in it."""
    answer = refusal(GateDecision(Admission.REJECT, reason, scope="key:acme/k", http_status=429))
    document = json.loads(answer.body)
    assert document["title"]
    assert document["error"]["type"]
    assert document["detail"] == document["error"]["message"] != ""
    assert "reset" not in document
    assert "rule" not in document


@pytest.mark.parametrize("admission", [Admission.ADMIT, Admission.REDIRECT])
def test_what_goes_out_is_no_refusal(admission: Admission) -> None:
    """Rendering a decision that lets the request go is a mistake of the caller."""
    with pytest.raises(ValueError, match="nothing to refuse"):
        refusal(GateDecision(admission, GateReason.ADMITTED))
