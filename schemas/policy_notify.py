"""Channels, routes, inhibition and maintenance windows as published in control.policies.

No secret stands here: fields that end in `_env` name an environment variable of the notify worker
(or, where NAME_FILE is set instead, the file that holds the value).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny
from typing_extensions import override


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ChannelBase(_Wire):
    """What every channel has.

    Each kind's own model is in its module (`alerting.notify.channels`). Two channels are equal if
    they are published as the same record, whether or not their kind is known where one was read.
    """

    id: str
    min_severity: str = "info"
    allow_private_address: bool = False
    """Lets the receiver be a private or loopback address (SSRF guard off for this channel)."""
    fallback: str = ""
    """The channel that gets what this one cannot deliver; empty for none."""
    title: str = ""
    """Template of the title (`schemas.templates`); empty for the built-in one."""
    text: str = ""
    """Template of the text; empty for the built-in one."""
    type: str
    """The name of its kind."""

    @override
    def __eq__(self, other: object) -> bool:
        """Whether the records are the same."""
        if not isinstance(other, ChannelBase):
            return NotImplemented
        return self.model_dump(mode="json") == other.model_dump(mode="json")

    @override
    def __hash__(self) -> int:
        """By id, which no two channels of one policy share."""
        return hash(self.id)


class PublishedChannel(ChannelBase):
    """A channel of any type, as read from the topic: it keeps the fields of its type."""

    model_config = ConfigDict(frozen=True, extra="allow")


def _as_published(value: Any) -> Any:
    return value if isinstance(value, ChannelBase) else PublishedChannel.model_validate(value)


AnyChannel = Annotated[SerializeAsAny[ChannelBase], BeforeValidator(_as_published)]
"""A channel whose type need not be known: what reads it looks its kind up."""


class Route(_Wire):
    """The channels that an alert goes to. Routes are tried in order; the first that matches ends the search."""

    id: str
    match: tuple[str, ...] = ()
    """Matchers that must all hold (`schemas.matchers`); none match every alert."""
    channels: tuple[str, ...] = ()
    """Empty sends the alert nowhere but to the log."""
    keep_looking: bool = False
    """Written `continue` in the file: ask the routes that follow as well."""
    group_by: tuple[str, ...] = ()
    """Labels whose alerts share one message on chat and mail channels; none: no grouping."""
    group_wait_seconds: int = 5
    group_interval_seconds: int = 300


class Inhibition(_Wire):
    """While a source is active, alerts that it explains are not sent.

    An open breaker is a source with the labels `rule="breaker"` and `state="open"`.
    """

    id: str
    source: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    relation: Literal["above", "same"] = "above"
    """Whether the source's scope stands above the target's, or is the same."""


class Maintenance(_Wire):
    """A recurring window in which alerts are not sent: on `days`, `minutes` long from `start`."""

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
    """Alerts that an operator mutes for a while: one object each.

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


LOG_CHANNEL = "log"
"""The channel that is always there: one line per alert in the worker's log."""
SILENCE_PREFIX = "silence:"
"""Object ids of silences: `silence:ID`."""

OPEN_BREAKER_MUTES_BELOW = Inhibition(
    id="open-breaker",
    source=("rule=breaker", "state=open"),
    target=("severity=~info|warning",),
    relation="above",
)
