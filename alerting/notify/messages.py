"""The message a receiver gets: an alert in the shape of Standard Webhooks. Pure.

    {"type": "alert.firing",                      or alert.resolved
     "timestamp": "2026-10-31T12:00:00.123Z",     when it began, or ended
     "data": {"id": "4000ac35...",                same in every repetition
              "dedup_key": "budget_month/75/department:acme/research/2026-10/1",
                                                  same for the firing and its resolution
              "rule": "budget_month", "status": "firing", "severity": "warning",
              "scope": "department:acme/research", "window": "month", "period": "2026-10",
              "threshold": "75", "threshold_unit": "percent",       or usd, tokens
              "observed": "75.100000000", "limit": "100.000000000", "amount_unit": "usd",
              "percent": 75, "budget_version": 1, "also_crossed": [50],
              "summary": "...", "starts_at": "...", "ends_at": null, "resets_at": "...",
              "commands": ["department:acme/research@1795264053.1"]}}
Amounts and thresholds are decimal strings, because JavaScript loses integers above 2**53.
"""

from __future__ import annotations

import json

from schemas.alert import Alert, AlertStatus
from schemas.money import usd_text
from schemas.periods import rfc3339

_NANO_USD = "nano_usd"


def message_id(alert: Alert) -> str:
    """The webhook-id: stable across retries, without the "." that separates what is signed.

    The alert's id already differs between firing and resolution.
    """
    return f"msg_{alert.id}"


def body_of(alert: Alert) -> bytes:
    """The request body."""
    is_resolved = alert.status is AlertStatus.RESOLVED
    at_ms = alert.ends_at_ms if is_resolved else alert.starts_at_ms
    # A percentage is always of money: only limits count tokens.
    amounts = _NANO_USD if alert.unit == "percent" else alert.unit
    document = {
        "type": f"alert.{alert.status.value}",
        "timestamp": rfc3339(at_ms),
        "data": {
            "id": alert.id,
            "dedup_key": alert.dedup_key,
            "rule": alert.rule_id,
            "rule_type": alert.rule_type.value,
            "status": alert.status.value,
            "severity": alert.severity.value,
            "scope": alert.scope,
            "window": alert.window,
            "period": alert.period,
            "threshold": _amount(alert.threshold, alert.unit),
            "threshold_unit": _unit(alert.unit),
            "observed": _amount(alert.observed, amounts),
            "limit": _amount(alert.limit, amounts),
            "amount_unit": _unit(amounts),
            "percent": alert.percent,
            "budget_version": alert.budget_version,
            "also_crossed": list(alert.also_crossed),
            "summary": alert.summary,
            "starts_at": rfc3339(alert.starts_at_ms),
            "ends_at": rfc3339(alert.ends_at_ms) if alert.ends_at_ms else None,
            "resets_at": rfc3339(alert.reset_at_ms) if alert.reset_at_ms else None,
            "commands": list(alert.commands),
        },
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _amount(amount: int, unit: str) -> str:
    return usd_text(amount) if unit == _NANO_USD else str(amount)


def _unit(unit: str) -> str:
    return "usd" if unit == _NANO_USD else unit
