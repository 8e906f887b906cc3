"""A signed webhook (Standard Webhooks). Pure."""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from meterline.alerting.notify.channel import one_of_url, usable_url
from meterline.schemas.policy_kinds import ChannelEntry, ChannelKind, FieldFault
from meterline.schemas.policy_notify import WebhookChannel


class WebhookEntry(ChannelEntry):
    """Its fields in the policy file."""

    url: str = ""
    url_env: str = ""
    secret_env: str = ""


class WebhookKind(ChannelKind[WebhookEntry, WebhookChannel]):
    """A receiver of signed requests."""

    name = "webhook"
    entry = WebhookEntry
    published = WebhookChannel

    @override
    def check(self, entry: WebhookEntry, /) -> Iterator[FieldFault]:
        yield from one_of_url(entry.url, entry.url_env)
        yield from usable_url(entry.url, allow_private_address=entry.allow_private_address)
