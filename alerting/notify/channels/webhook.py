"""A signed webhook (Standard Webhooks). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from typing_extensions import override

from meterline.alerting.notify.channels.base import (
    Channel,
    Message,
    NotReadyError,
    Secrets,
    post,
)
from meterline.alerting.notify.core.messages import body_of
from meterline.backends.webhook.messages import (
    WebhookForbiddenError,
    WebhookRequest,
    signing_secret,
)
from meterline.schemas.channel_urls import one_of_url, usable_url
from meterline.schemas.policy_kinds import ChannelEntry, FieldFault
from meterline.schemas.policy_notify import ChannelBase


class WebhookChannel(ChannelBase):
    """A signed webhook receiver (Standard Webhooks)."""

    type: Literal["webhook"] = "webhook"
    url: str = ""
    url_env: str = ""
    """Names the variable that holds the URL, where the URL itself is a secret."""
    secret_env: str = ""
    """Names the variable that holds the whsec_ secret."""


class WebhookEntry(ChannelEntry):
    """Its fields in the policy file."""

    url: str = ""
    url_env: str = ""
    secret_env: str = ""


class Webhook(Channel[WebhookEntry, WebhookChannel]):
    """A receiver of signed requests."""

    name = "webhook"
    entry = WebhookEntry
    published = WebhookChannel

    @override
    def check(self, entry: WebhookEntry, /) -> Iterator[FieldFault]:
        """One usable address, written or named."""
        yield from one_of_url(entry.url, entry.url_env)
        yield from usable_url(entry.url, allow_private_address=entry.allow_private_address)

    @override
    def request(
        self, channel: WebhookChannel, message: Message, secrets: Secrets, /
    ) -> WebhookRequest:
        """A POST of the alert, signed where the channel has a secret."""
        secret = secrets.get("secret_env", "")
        if secret:
            try:
                signing_secret(secret)
            except WebhookForbiddenError as error:
                reason = f"{channel.secret_env}: {error}"
                raise NotReadyError(reason) from error
        url = channel.url or secrets["url_env"]
        return post(channel, message, url, body_of(message.job.alert), secret=secret)
