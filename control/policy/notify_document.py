"""The `notify` part of the policy file: what people may write."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from meterline.schemas.alert import Severity
from meterline.schemas.policy_entry import Entry, Percent, Text

# A day: alerts that wait longer for company are not alerts.
GROUP_SECONDS_MAX = 86_400
# A week: longer than that is a silence, with an end.
MAINTENANCE_MINUTES_MAX = 7 * 24 * 60
TEMPLATE_LENGTH_MAX = 4_000

ChannelType = Literal["webhook", "slack", "pagerduty", "email", "alertmanager"]
TlsMode = Literal["starttls", "tls", "none"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Template = Annotated[str, Field(max_length=TEMPLATE_LENGTH_MAX)]


class ChannelEntry(Entry):
    """A receiver of alerts; which fields it takes depends on `type`."""

    id: Text
    type: ChannelType = "webhook"
    min_severity: Severity | None = None
    """From which severity on; default: pagerduty from warning on, the others everything."""
    allow_private_address: bool = False
    fallback: Text = ""
    title: Template = ""
    text: Template = ""
    url: str = ""
    url_env: str = ""
    secret_env: str = ""
    routing_key_env: str = ""
    token_env: str = ""
    critical_from_percent: Percent | None = None
    host: Text = ""
    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    tls: TlsMode | None = None
    username: Text = ""
    password_env: str = ""
    sender: Text = ""
    recipients: tuple[Text, ...] = ()


class RouteEntry(Entry):
    """Whom some alerts go to."""

    id: Text
    match: tuple[str, ...] = ()
    channels: tuple[Text, ...] = ()
    keep_looking: bool = Field(default=False, alias="continue")
    group_by: tuple[Text, ...] = ()
    group_wait_seconds: Annotated[int, Field(ge=0, le=GROUP_SECONDS_MAX)] = 5
    group_interval_seconds: Annotated[int, Field(ge=0, le=GROUP_SECONDS_MAX)] = 300


class InhibitionEntry(Entry):
    """What is not told while something that explains it is active."""

    id: Text
    source: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    relation: Literal["above", "same"] = "above"


class MaintenanceEntry(Entry):
    """A recurring window without alerts."""

    id: Text
    match: tuple[str, ...] = ()
    author: Text
    reason: Text
    days: tuple[Day, ...] = ()
    start: str
    minutes: Annotated[int, Field(ge=1, le=MAINTENANCE_MINUTES_MAX)]
    until: str = ""


class NotifyEntry(Entry):
    """Where alerts go, and when they do not."""

    channels: tuple[ChannelEntry, ...] = ()
    routes: tuple[RouteEntry, ...] = ()
    inhibit: tuple[InhibitionEntry, ...] | None = None
    """Default: a department's open breaker mutes its keys' and projects' warnings."""
    maintenance: tuple[MaintenanceEntry, ...] = ()


CHANNEL_FIELDS: dict[str, frozenset[str]] = {
    "webhook": frozenset({"url", "url_env", "secret_env"}),
    "slack": frozenset({"url_env", "title", "text"}),
    "pagerduty": frozenset({"url", "routing_key_env", "critical_from_percent", "title"}),
    "email": frozenset(
        {
            *{"host", "port", "tls", "username", "password_env", "sender", "recipients"},
            *{"title", "text"},
        }
    ),
    "alertmanager": frozenset({"url", "url_env", "token_env"}),
}
"""What each type takes beside the fields that all have."""
COMMON_FIELDS = frozenset({"id", "type", "min_severity", "allow_private_address", "fallback"})
