"""PagerDuty events (Events API v2). Pure.

One incident per rule, scope, period and budget version: a higher threshold triggers the same
dedup_key again, more severe; the incident resolves when the last alert of it does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from typing_extensions import override

from meterline.alerting.notify.channels.base import (
    Channel,
    Message,
    Secrets,
    cut,
    post,
    required,
)
from meterline.alerting.notify.core.messages import alert_view, compact_json, filled, incident_key
from meterline.alerting.notify.core.rate_limit import RateLimit
from meterline.backends.webhook.messages import WebhookRequest
from meterline.schemas.alert import Alert, AlertStatus
from meterline.schemas.channel_urls import usable_url
from meterline.schemas.periods import rfc3339
from meterline.schemas.policy_entry import Percent, Template
from meterline.schemas.policy_kinds import ChannelEntry, FieldFault
from meterline.schemas.policy_notify import ChannelBase

DEDUP_KEY_LENGTH_MAX = 255
SUMMARY_LENGTH_MAX = 1_024
TITLE = "{{ alert.summary }}"
_PERCENT = "percent"


def pagerduty_body(
    alert: Alert, firing: Sequence[Alert], channel: PagerDutyChannel, routing_key: str
) -> bytes:
    """The request body.

    Args:
        alert: whose message this is.
        firing: the alerts of the same incident that fire now.
        channel: the channel's policy.
        routing_key: the integration key.
    """
    # A retry of 75 % after 90 % was sent must not lower the severity, and a resolved 100 %
    # does not close it while 90 % stands.
    candidates = [*firing, alert] if alert.status is AlertStatus.FIRING else list(firing)
    envelope: dict[str, Any] = {
        "routing_key": routing_key,
        "dedup_key": dedup_key(alert),
    }
    if not candidates:
        return compact_json({**envelope, "event_action": "resolve"})
    shown = max(candidates, key=lambda one: (one.threshold, one.starts_at_ms))
    view = alert_view(shown)
    payload = {
        "summary": cut(filled(channel.title, TITLE, [shown], channel.id), SUMMARY_LENGTH_MAX),
        "source": shown.scope,
        "severity": pagerduty_severity(shown, channel.critical_from_percent),
        "timestamp": rfc3339(shown.starts_at_ms),
        "component": shown.window,
        "group": shown.scope,
        "class": shown.rule_id,
        "custom_details": view,
    }
    return compact_json(
        {**envelope, "event_action": "trigger", "client": "Meterline", "payload": payload}
    )


def pagerduty_severity(alert: Alert, critical_from_percent: int) -> str:
    """PagerDuty's four are ours, except that a budget's alert is critical from a percentage."""
    if alert.unit == _PERCENT and alert.threshold >= critical_from_percent:
        return "critical"
    return alert.severity.value


def dedup_key(alert: Alert) -> str:
    """The incident's key, or its hash where it is longer than PagerDuty takes."""
    key = incident_key(alert)
    if len(key) <= DEDUP_KEY_LENGTH_MAX:
        return key
    return hashlib.sha256(key.encode()).hexdigest()


class PagerDutyChannel(ChannelBase):
    """A PagerDuty service with an Events API v2 integration."""

    type: Literal["pagerduty"] = "pagerduty"
    routing_key_env: str
    """Names the variable that holds the integration key."""
    url: str = "https://events.pagerduty.com/v2/enqueue"
    """Another region's endpoint (https://events.eu.pagerduty.com/v2/enqueue), or a proxy's."""
    min_severity: str = "warning"
    critical_from_percent: int = 90
    """A budget's alert from this percentage on pages as critical."""


class PagerDutyEntry(ChannelEntry):
    """Its fields in the policy file."""

    url: str = ""
    routing_key_env: str = ""
    critical_from_percent: Percent | None = None
    title: Template = ""


class PagerDuty(Channel[PagerDutyEntry, PagerDutyChannel]):
    """A service with an Events API v2 integration."""

    name = "pagerduty"
    entry = PagerDutyEntry
    published = PagerDutyChannel
    rate_limit = RateLimit(120, 60_000)
    """About 120 events a minute and integration key, counted over the last 60 s."""

    @override
    def check(self, entry: PagerDutyEntry, /) -> Iterator[FieldFault]:
        """A routing key is named, and the address is usable."""
        yield from required(entry, "routing_key_env")
        yield from usable_url(entry.url, allow_private_address=entry.allow_private_address)

    @override
    def request(
        self, channel: PagerDutyChannel, message: Message, secrets: Secrets, /
    ) -> WebhookRequest:
        """A POST of the Events API v2."""
        key = secrets["routing_key_env"]
        body = pagerduty_body(message.job.alert, message.firing, channel, key)
        return post(channel, message, channel.url, body)
