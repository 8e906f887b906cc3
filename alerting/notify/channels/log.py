"""The worker's log: one line per alert, always there, never fails. Pure."""

from __future__ import annotations

from typing_extensions import override

from meterline.alerting.notify.channels.base import Channel, LogRequest, Message, Secrets
from meterline.schemas.policy_kinds import ChannelEntry
from meterline.schemas.policy_notify import ChannelBase


class Log(Channel[ChannelEntry, ChannelBase]):
    """Not a type of the policy file: every worker has one."""

    name = "log"
    entry = ChannelEntry
    published = ChannelBase

    @override
    def request(self, channel: ChannelBase, message: Message, secrets: Secrets, /) -> LogRequest:
        """The alerts as lines of the log."""
        return LogRequest(message.job.alerts)
