"""Messages: their identity, what templates see, and the body of a signed webhook. Pure.

The webhook's body is an alert in the shape of Standard Webhooks:

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
              "commands": ["department:acme/research@1795264053.1"],
              "reminder": 0, "explanation": null}}
Amounts and thresholds are decimal strings, because JavaScript loses integers above 2**53.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from meterline.alerting.notify.core.advice import advice
from meterline.schemas.alert import Alert, AlertStatus, Severity
from meterline.schemas.money import usd_display, usd_text
from meterline.schemas.periods import rfc3339
from meterline.schemas.templates import TemplateError, render

_NANO_USD = "nano_usd"
_ID_LENGTH = 32  # 128 bits of SHA-256, as for alerts
_SEVERITY_RANK = {severity: rank for rank, severity in enumerate(Severity)}


def message_id(alerts: Sequence[Alert]) -> str:
    """The webhook-id: stable across retries, without the "." that separates what is signed.

    Of one alert it is made of the alert's id, which differs between firing and resolution; of
    several it is made of theirs, in order.
    """
    if len(alerts) == 1:
        return f"msg_{alerts[0].id}"
    joined = "\n".join(alert.id for alert in alerts)
    return f"msg_{hashlib.sha256(joined.encode()).hexdigest()[:_ID_LENGTH]}"


def incident_key(alert: Alert) -> str:
    """What a person would call one incident: a rule of a scope in one period.

    The thresholds of a budget share it, so that 90 % raises the severity of the 75 % and is not a second page.
    """
    return f"{alert.rule_id}/{alert.scope}/{alert.period}/{alert.budget_version}"


def in_order(alerts: Sequence[Alert]) -> list[Alert]:
    """Firing before resolved, most severe first, then in order of arrival."""
    return sorted(
        alerts,
        key=lambda alert: (alert.status is AlertStatus.RESOLVED, -_SEVERITY_RANK[alert.severity]),
    )


def variables(alerts: Sequence[Alert], channel: str) -> dict[str, Any]:
    """What templates see: `schemas.templates.VARIABLES`."""
    views = [alert_view(alert) for alert in in_order(alerts)]
    return {
        "alert": views[0],
        "alerts": views,
        "count": len(views),
        "status": views[0]["status"],
        "severity": max((alert.severity for alert in alerts), key=_SEVERITY_RANK.__getitem__).value,
        "channel": channel,
    }


def filled(
    template: str,
    built_in: str,
    alerts: Sequence[Alert],
    channel: str,
    escape: Callable[[str], str] | None = None,
) -> str:
    """A template's text for a message.

    A template that fails on real data must not keep an alert from its receivers: the built-in one
    stands in for it.

    Args:
        template: the channel's own; empty for the built-in one.
        built_in: the template of the channel's kind.
        alerts: of the message, at least one.
        channel: the channel's id.
        escape: makes text of a value that the receiver would read as markup; None for plain text.
    """
    values = variables(alerts, channel)
    if template:
        try:
            return render(template, values, escape)
        except TemplateError:
            return render(built_in, values, escape)
    return render(built_in, values, escape)


def alert_view(alert: Alert) -> dict[str, Any]:
    """One alert as texts and numbers: `schemas.templates.ALERT_FIELDS`."""
    data = _data(alert)
    return {
        **data,
        "action": advice(alert),
        "driver": driver_text(alert),
        "ends_at": data["ends_at"] or "",
        "resets_at": data["resets_at"] or "",
    }


def body_of(alert: Alert) -> bytes:
    """The body of a signed webhook."""
    is_resolved = alert.status is AlertStatus.RESOLVED
    document = {
        "type": f"alert.{alert.status.value}",
        "timestamp": rfc3339(alert.ends_at_ms if is_resolved else alert.starts_at_ms),
        "data": _data(alert),
    }
    return compact_json(document)


def compact_json(document: Any) -> bytes:
    """A request body."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _data(alert: Alert) -> dict[str, Any]:
    # A percentage is always of money: only limits count tokens.
    amounts = _NANO_USD if alert.unit == "percent" else alert.unit
    return {
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
        "reminder": alert.reminder,
        "explanation": _explanation(alert),
    }


def _explanation(alert: Alert) -> dict[str, Any] | None:
    """Why a history-based rule fired; money as decimal strings."""
    found = alert.explanation
    if found is None:
        return None
    return {
        "method": found.method,
        "baseline": usd_text(found.baseline_nano_usd),
        "excess": usd_text(found.excess_nano_usd),
        "score": f"{found.score_hundredths / 100:.2f}",
        "seconds_left": found.seconds_left if found.seconds_left >= 0 else None,
        "drivers": [
            {
                "key": driver.key,
                "model": driver.model,
                "spent": usd_text(driver.spent_nano_usd),
                "usual": usd_text(driver.usual_nano_usd),
            }
            for driver in found.drivers
        ],
    }


def driver_text(alert: Alert, shown: Callable[[str], str] = str) -> str:
    """The key and model that drove it, in a few words; empty where unknown.

    Args:
        alert: the alert.
        shown: a name as the receiver shows it: escaped, cut.
    """
    if alert.explanation is None or not alert.explanation.drivers:
        return ""
    first = alert.explanation.drivers[0]
    spent, usual = usd_display(first.spent_nano_usd), usd_display(first.usual_nano_usd)
    return f"{shown(first.key)} with {shown(first.model)}: {spent}, usually {usual}"


def _amount(amount: int, unit: str) -> str:
    return usd_text(amount) if unit == _NANO_USD else str(amount)


def _unit(unit: str) -> str:
    return "usd" if unit == _NANO_USD else unit
