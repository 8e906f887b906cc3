"""Channels, routes, inhibition and maintenance windows as published in control.policies.

No secret stands here: fields that end in `_env` name an environment variable of the notify worker
(or, where NAME_FILE is set instead, the file that holds the value).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ChannelBase(_Wire):
    """What every channel has."""

    id: str
    min_severity: str = "info"
    allow_private_address: bool = False
    """Lets the receiver be a private or loopback address (SSRF guard off for this channel)."""
    fallback: str = ""
    """The channel that is told what this one cannot be told; empty for none."""
    title: str = ""
    """Template of the title (`schemas.templates`); empty for the built-in one."""
    text: str = ""
    """Template of the text; empty for the built-in one."""


class WebhookChannel(ChannelBase):
    """A signed webhook receiver (Standard Webhooks)."""

    type: Literal["webhook"] = "webhook"
    url: str = ""
    url_env: str = ""
    """Names the variable that holds the URL, where the URL itself is a secret."""
    secret_env: str = ""
    """Names the variable that holds the whsec_ secret."""


class SlackChannel(ChannelBase):
    """A Slack incoming webhook; its URL is a secret."""

    type: Literal["slack"] = "slack"
    url_env: str


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


class EmailChannel(ChannelBase):
    """Mail through an SMTP server."""

    type: Literal["email"] = "email"
    host: str
    port: int = 587
    tls: Literal["starttls", "tls", "none"] = "starttls"
    """`starttls` is required and not merely tried; `none` only with allow_private_address."""
    username: str = ""
    password_env: str = ""
    sender: str
    recipients: tuple[str, ...]


class AlertmanagerChannel(ChannelBase):
    """An Alertmanager, which takes the alert over (POST /api/v2/alerts)."""

    type: Literal["alertmanager"] = "alertmanager"
    url: str = ""
    """The server's base URL, or the whole address of its /api/v2/alerts."""
    url_env: str = ""
    token_env: str = ""
    """Names the variable that holds a bearer token."""


Channel = Annotated[
    WebhookChannel | SlackChannel | PagerDutyChannel | EmailChannel | AlertmanagerChannel,
    Field(discriminator="type"),
]
CHANNEL_TYPES: dict[str, type[ChannelBase]] = {
    "webhook": WebhookChannel,
    "slack": SlackChannel,
    "pagerduty": PagerDutyChannel,
    "email": EmailChannel,
    "alertmanager": AlertmanagerChannel,
}


class Route(_Wire):
    """Whom an alert goes to. Routes are asked in order; the first that matches ends the search."""

    id: str
    match: tuple[str, ...] = ()
    """Matchers that must all hold (`schemas.matchers`); none match every alert."""
    channels: tuple[str, ...] = ()
    """Empty sends the alert nowhere but to the log."""
    keep_looking: bool = False
    """Written `continue` in the file: ask the routes that follow as well."""
    group_by: tuple[str, ...] = ()
    """Labels whose alerts share one message on channels that people read; none: no grouping."""
    group_wait_seconds: int = 5
    group_interval_seconds: int = 300


class Inhibition(_Wire):
    """While a source is active, alerts that it explains are not told.

    An open breaker is a source with the labels `rule="breaker"` and `state="open"`.
    """

    id: str
    source: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    relation: Literal["above", "same"] = "above"
    """Whether the source's scope stands above the target's, or is the same."""


class Maintenance(_Wire):
    """A recurring window in which alerts are not told: `days` from `start` for so many minutes."""

    id: str
    match: tuple[str, ...]
    author: str
    reason: str
    days: tuple[str, ...] = ()
    """mon, tue, ...; none: every day."""
    start: str
    """HH:MM in the billing time zone."""
    minutes: int
    until_ms: int = 0
    """The window recurs no more from here on; 0: until it is taken out of the file."""


class Silence(_Wire):
    """Alerts that somebody does not want to hear of for a while: one object each.

    Published by `meterline silence`, not by the policy file; an end in the past is how one ends.
    """

    kind: Literal["silence"] = "silence"
    version: int = 1
    id: str
    match: tuple[str, ...] = Field(min_length=1)
    starts_at_ms: int
    ends_at_ms: int
    author: str
    reason: str


SILENCE_PREFIX = "silence:"
"""Object ids of silences: `silence:ID`."""

OPEN_BREAKER_MUTES_BELOW = Inhibition(
    id="open-breaker",
    source=("rule=breaker", "state=open"),
    target=("severity=~info|warning",),
    relation="above",
)
