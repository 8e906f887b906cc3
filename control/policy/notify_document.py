"""The `notify` part of the policy file, field by field."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from meterline.schemas.policy_entry import Entry, Text
from meterline.schemas.policy_kinds import ChannelEntry

# A day: alerts that wait longer for company are not alerts.
GROUP_SECONDS_MAX = 86_400
# A week: longer than that is a silence, with an end.
MAINTENANCE_MINUTES_MAX = 7 * 24 * 60

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class UnknownChannelEntry(ChannelEntry):
    """A channel whose `type` names no kind, read so that the rest of it is checked as well.

    `document_type` adds every field that some kind has, none of them required.
    """

    type: Any = None


class RouteEntry(Entry):
    """The channels that some alerts go to."""

    id: Text
    match: tuple[str, ...] = ()
    channels: tuple[Text, ...] = ()
    keep_looking: bool = Field(default=False, alias="continue")
    group_by: tuple[Text, ...] = ()
    group_wait_seconds: Annotated[int, Field(ge=0, le=GROUP_SECONDS_MAX)] = 5
    group_interval_seconds: Annotated[int, Field(ge=0, le=GROUP_SECONDS_MAX)] = 300


class InhibitionEntry(Entry):
    """Alerts that are not sent while one that explains them is active."""

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
