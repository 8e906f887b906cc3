"""A channel that this version cannot read, as in a rolling upgrade. Pure."""

from __future__ import annotations

from typing import NoReturn

from typing_extensions import override

from meterline.alerting.notify.channels.base import Channel, Message, NotReadyError, Secrets
from meterline.schemas.policy_kinds import ChannelEntry
from meterline.schemas.policy_notify import ChannelBase


class Unreadable(Channel[ChannelEntry, ChannelBase]):
    """Stands for the channel: its messages are retried on schedule and its fallback is notified.

    A worker of the right version delivers them; the other channels are not affected.
    """

    name = ""
    entry = ChannelEntry
    published = ChannelBase

    def __init__(self, reason: str) -> None:
        """Take the reason, for the log and every attempt."""
        self.reason = reason

    @override
    def request(self, channel: ChannelBase, message: Message, secrets: Secrets, /) -> NoReturn:
        """Never: the message waits for a worker that knows the type."""
        raise NotReadyError(self.reason)
