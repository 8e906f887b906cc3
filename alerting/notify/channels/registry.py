"""Every kind of channel, and the channels of a published policy with their kinds. Pure.

A new kind is one module beside this one and one line in `_KINDS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from meterline.alerting.notify.channels.alertmanager import Alertmanager
from meterline.alerting.notify.channels.base import BoundChannel, Channel
from meterline.alerting.notify.channels.email import Email
from meterline.alerting.notify.channels.log import Log
from meterline.alerting.notify.channels.pagerduty import PagerDuty
from meterline.alerting.notify.channels.slack import Slack
from meterline.alerting.notify.channels.teams import Teams
from meterline.alerting.notify.channels.unreadable import Unreadable
from meterline.alerting.notify.channels.webhook import Webhook
from meterline.schemas.policy import NotifyPolicy
from meterline.schemas.policy_notify import LOG_CHANNEL, ChannelBase

Kinds = Mapping[str, Channel[Any, Any]]

_KINDS: tuple[Channel[Any, Any], ...] = (
    Webhook(),
    Slack(),
    PagerDuty(),
    Email(),
    Alertmanager(),
    Teams(),
)
CHANNEL_KINDS: Kinds = MappingProxyType({kind.name: kind for kind in _KINDS})
"""By `type`."""

_LOG = BoundChannel(Log(), ChannelBase(id=LOG_CHANNEL, type=Log.name))


def bound_channels(policy: NotifyPolicy, kinds: Kinds = CHANNEL_KINDS) -> dict[str, BoundChannel]:
    """Every channel by its id, the log among them."""
    found = {channel.id: _bind(channel, kinds) for channel in policy.channels}
    return {**found, LOG_CHANNEL: _LOG}


def unreadable(channels: Mapping[str, BoundChannel]) -> dict[str, str]:
    """The channels that this version cannot read, with the reason."""
    return {
        name: bound.kind.reason
        for name, bound in channels.items()
        if isinstance(bound.kind, Unreadable)
    }


def _bind(channel: ChannelBase, kinds: Kinds) -> BoundChannel:
    kind = kinds.get(channel.type)
    if kind is None:
        return BoundChannel(
            Unreadable(f"this version has no channels of type {channel.type}"), channel
        )
    try:
        # Unset fields stay out: the kind's model may have another default than the base model.
        written = channel.model_dump(exclude_unset=True)
        return BoundChannel(kind, kind.published.model_validate(written))
    except ValidationError:
        # Without the fault's text, which may quote a URL.
        reason = f"this version cannot read the channel's policy (type {channel.type})"
        return BoundChannel(Unreadable(reason), channel)
