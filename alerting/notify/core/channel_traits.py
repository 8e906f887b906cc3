"""What decisions need to know of a channel. Pure."""

from __future__ import annotations

from typing import NamedTuple

from meterline.alerting.notify.core.rate_limit import UNLIMITED, RateLimit


class ChannelTraits(NamedTuple):
    """Of one channel of the published policy."""

    fingerprint: str
    """Changes when the channel's policy does."""
    rate_limit: RateLimit = UNLIMITED
    groups: bool = False
    """Whether the alerts of one group come in one message, as in a chat or a mail."""
    fallback: str = ""
    """Id of the channel that gets what this one cannot deliver; empty for none."""
