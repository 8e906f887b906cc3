"""Alerts for an Alertmanager (POST /api/v2/alerts). Pure.

Alertmanager identifies alerts by their labels, so the labels never change while an alert lasts;
everything that does stands in the annotations. It takes an alert for over when `endsAt` passes:
a firing one gets the end of its period, after which its cause is gone by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from typing_extensions import override

from meterline.alerting.notify.channels.base import (
    Channel,
    Message,
    Secrets,
    post,
)
from meterline.alerting.notify.core.labels import labels_of
from meterline.alerting.notify.core.messages import alert_view, compact_json
from meterline.backends.webhook.messages import WebhookRequest
from meterline.schemas.alert import Alert, AlertStatus
from meterline.schemas.channel_urls import one_of_url, usable_url
from meterline.schemas.periods import rfc3339
from meterline.schemas.policy_kinds import ChannelEntry, FieldFault
from meterline.schemas.policy_notify import ChannelBase

API_PATH = "/api/v2/alerts"
# For a firing alert that has no end of its own: long enough not to be repeated in time.
ENDS_AFTER_MS = 7 * 86_400_000


def alertmanager_body(alerts: Sequence[Alert]) -> bytes:
    """The request body."""
    return compact_json([_posted(alert) for alert in alerts])


def alertmanager_url(url: str) -> str:
    """The address of the alerts, given that or the server's base URL."""
    base = url.rstrip("/")
    return base if base.endswith(API_PATH) else base + API_PATH


def _posted(alert: Alert) -> dict[str, object]:
    view = alert_view(alert)
    ends_ms = alert.ends_at_ms
    if alert.status is AlertStatus.FIRING:
        ends_ms = alert.reset_at_ms or alert.starts_at_ms + ENDS_AFTER_MS
    labels = {
        **{name: text for name, text in labels_of(alert, {}).items() if name != "state"},
        "alertname": alert.rule_id,
        "period": alert.period,
        "threshold": str(view["threshold"]),
        "budget_version": str(alert.budget_version),
        "source": "meterline",
    }
    annotations = {
        name: str(view[name])
        for name in ("summary", "action", "observed", "limit", "amount_unit", "percent", "driver")
    }
    return {
        # An empty label does not exist for Alertmanager.
        "labels": {name: value for name, value in labels.items() if value},
        "annotations": annotations,
        "startsAt": rfc3339(alert.starts_at_ms),
        "endsAt": rfc3339(ends_ms),
    }


class AlertmanagerChannel(ChannelBase):
    """An Alertmanager, which takes the alert over (POST /api/v2/alerts)."""

    type: Literal["alertmanager"] = "alertmanager"
    url: str = ""
    """The server's base URL, or the whole address of its /api/v2/alerts."""
    url_env: str = ""
    token_env: str = ""
    """Names the variable that holds a bearer token."""


class AlertmanagerEntry(ChannelEntry):
    """Its fields in the policy file."""

    url: str = ""
    url_env: str = ""
    token_env: str = ""


class Alertmanager(Channel[AlertmanagerEntry, AlertmanagerChannel]):
    """An Alertmanager's API."""

    name = "alertmanager"
    entry = AlertmanagerEntry
    published = AlertmanagerChannel

    @override
    def check(self, entry: AlertmanagerEntry, /) -> Iterator[FieldFault]:
        """One usable address, written or named."""
        yield from one_of_url(entry.url, entry.url_env)
        yield from usable_url(entry.url, allow_private_address=entry.allow_private_address)

    @override
    def request(
        self, channel: AlertmanagerChannel, message: Message, secrets: Secrets, /
    ) -> WebhookRequest:
        """A POST of Alertmanager's API v2."""
        url = alertmanager_url(channel.url or secrets["url_env"])
        body = alertmanager_body(message.job.alerts)
        return post(channel, message, url, body, bearer=secrets.get("token_env", ""))
