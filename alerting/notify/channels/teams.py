"""Microsoft Teams: an Adaptive Card to the webhook of a workflow, or of an old connector. Pure.

    https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/
        add-incoming-webhook    28 KB a message; more than four requests a second are throttled
        connectors-using        the connector's longer windows: 60 in 30 s, 100 in an hour
    https://learn.microsoft.com/adaptive-cards/authoring-cards/text-features
        TextBlock reads a part of Markdown, a TextRun of a RichTextBlock reads none

A workflow answers 202 and posts later; a connector answers 200, also when it failed: then the body
says "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from typing_extensions import override

from meterline.alerting.notify.channels.base import (
    Channel,
    Message,
    Secrets,
    cut,
    post,
    required,
)
from meterline.alerting.notify.core.messages import alert_view, compact_json, filled, in_order
from meterline.alerting.notify.core.rate_limit import RateLimit
from meterline.alerting.notify.core.retry_schedule import Attempt
from meterline.backends.webhook.messages import WebhookAnswer, WebhookRequest
from meterline.schemas.alert import Alert, AlertStatus, Severity
from meterline.schemas.delivery import DeliveryOutcome
from meterline.schemas.policy_entry import Template
from meterline.schemas.policy_kinds import ChannelEntry, FieldFault
from meterline.schemas.policy_notify import ChannelBase

# The documented 28 KB are of what Teams makes of the message; senders report 413 from 21 KB on.
BODY_BYTES_MAX = 20_000
TITLE_LENGTH_MAX = 150
SUMMARY_LENGTH_MAX = 700
TEXT_LENGTH_MAX = 8_000
ALERTS_SHOWN_MAX = 10
# A 429 without Retry-After: the connector's second window, for the first is over when it is read.
RETRY_AFTER_SECONDS = 30
# 1.4 is the newest that both workflows and connectors render.
CARD_VERSION = "1.4"
TITLE = (
    "{% if status == 'resolved' %}Resolved{% else %}{{ severity | capitalize }}{% endif %}: "
    "{% if count == 1 %}{{ alert.scope }}{% else %}{{ count }} alerts{% endif %}"
)
_TOO_MANY_REQUESTS = 429
_MARKUP = re.compile(r"([\\`*_\[\]()<>#~|])")
_LIST_MARKER = re.compile(r"^(\d*)([-+.])")
# Where a client might find an address to link, or a card's {{DATE()}} to fill in.
_ACTIVE = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=\{)(?=\{)", re.IGNORECASE)
_ZERO_WIDTH_SPACE = "\u200b"
_FAILED = re.compile(r"delivery failed with error", re.IGNORECASE)
_FAILED_STATUS = re.compile(r"HTTP error ([45]\d\d)")
_COLORS = {
    Severity.INFO: "Accent",
    Severity.WARNING: "Warning",
    Severity.ERROR: "Attention",
    Severity.CRITICAL: "Attention",
}


class TeamsChannel(ChannelBase):
    """A webhook of Microsoft Teams; its URL is a secret."""

    type: Literal["teams"] = "teams"
    url_env: str


class TeamsEntry(ChannelEntry):
    """Its fields in the policy file."""

    url_env: str = ""
    title: Template = ""
    text: Template = ""


class Teams(Channel[TeamsEntry, TeamsChannel]):
    """A webhook of Microsoft Teams."""

    name = "teams"
    entry = TeamsEntry
    published = TeamsChannel
    rate_limit = RateLimit(4, 1_000)
    """Four requests a second and webhook (add-incoming-webhook, see above)."""
    groups = True

    @override
    def check(self, entry: TeamsEntry, /) -> Iterator[FieldFault]:
        """The variable of the URL is named: the URL is the secret."""
        yield from required(entry, "url_env")

    @override
    def request(
        self, channel: TeamsChannel, message: Message, secrets: Secrets, /
    ) -> WebhookRequest:
        """A POST of an Adaptive Card to the workflow or connector."""
        return post(channel, message, secrets["url_env"], teams_body(message.job.alerts, channel))

    @override
    def judge(self, answer: WebhookAnswer, /) -> Attempt:
        """As for any receiver, but for answers that Teams gives with another meaning."""
        attempt = super().judge(answer)
        if attempt.outcome is DeliveryOutcome.DELIVERED and _FAILED.search(answer.body_start):
            found = _FAILED_STATUS.search(answer.body_start)
            # A failure without a status may be anything: it is retried as a 500 is.
            answer = replace(answer, status=int(found[1]) if found else 500)
            error = f"answered 200, and that delivery failed with {answer.status}"
            attempt = replace(super().judge(answer), error=error)
        if answer.status == _TOO_MANY_REQUESTS and not answer.retry_after_seconds:
            return replace(attempt, retry_after_seconds=RETRY_AFTER_SECONDS)
        return attempt


def teams_body(alerts: Sequence[Alert], channel: TeamsChannel) -> bytes:
    """The request body: one card, within the size that Teams takes.

    Args:
        alerts: of one message, at least one.
        channel: the channel's policy.
    """
    ordered = in_order(alerts)
    heading = filled(channel.title, TITLE, ordered, channel.id) or ordered[0].scope
    title = _plain(
        _run(cut(inert(heading), TITLE_LENGTH_MAX), weight="Bolder", size="Large"),
    )
    if channel.text:
        # The template's own marks stay; the values in it can mention and link nothing.
        text = filled(channel.text, "{{ alert.summary }}", ordered, channel.id, escaped)
        length = TEXT_LENGTH_MAX
        while len(body := _card([title, _markdown(cut(text, length))])) > BODY_BYTES_MAX:
            length //= 2
        return body
    shown = ALERTS_SHOWN_MAX
    while len(body := _card([title, *_blocks(ordered, shown)])) > BODY_BYTES_MAX and shown > 1:
        shown -= 1
    return body


def inert(text: str) -> str:
    """Plain text in which a client finds no address to link and no date to fill in."""
    return _ACTIVE.sub(_ZERO_WIDTH_SPACE, text)


def escaped(text: str) -> str:
    """Text that a TextBlock shows as it is: no mention, no link, no emphasis, no list.

    Every bracket gets a backslash of its own, so that a client that does not know backslashes
    finds no `](` either.
    """
    one_line = " ".join(inert(text).split())
    return _LIST_MARKER.sub(r"\1\\\2", _MARKUP.sub(r"\\\1", one_line))


def _blocks(ordered: Sequence[Alert], shown: int) -> list[dict[str, Any]]:
    blocks = [block for alert in ordered[:shown] for block in _alert_blocks(alert)]
    if len(ordered) > shown:
        blocks.append(_plain(_run(f"and {len(ordered) - shown} more", isSubtle=True)))
    return blocks


def _alert_blocks(alert: Alert) -> list[dict[str, Any]]:
    view = alert_view(alert)
    is_resolved = alert.status is AlertStatus.RESOLVED
    color = "Good" if is_resolved else _COLORS[alert.severity]
    summary = cut(inert(alert.summary), SUMMARY_LENGTH_MAX)
    blocks = [_plain(_run(summary, weight="Bolder", color=color), separator=True)]
    if not is_resolved:
        if view["driver"]:
            driver = cut(inert(str(view["driver"])), SUMMARY_LENGTH_MAX)
            blocks.append(_plain(_run(f"Driven by {driver}")))
        blocks.append(_plain(_run(str(view["action"]))))
    facts = [alert.rule_id, alert.severity.value, f"since {view['starts_at']}"]
    if is_resolved:
        facts.append(f"ended {view['ends_at']}")
    elif view["resets_at"]:
        facts.append(f"resets {view['resets_at']}")
    if alert.reminder:
        facts.append(f"reminder {alert.reminder}")
    if alert.commands:
        facts.append("throttled")
    blocks.append(_plain(_run(inert(" · ".join(facts)), size="Small", isSubtle=True)))
    return blocks


def _card(blocks: Sequence[dict[str, Any]]) -> bytes:
    content = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": CARD_VERSION,
        "body": blocks,
        "msteams": {"width": "Full"},
    }
    attachment = {
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": None,
        "content": content,
    }
    return compact_json({"type": "message", "attachments": [attachment]})


def _plain(run: dict[str, Any], *, separator: bool = False) -> dict[str, Any]:
    """A paragraph in which nothing is read as Markdown."""
    block: dict[str, Any] = {"type": "RichTextBlock", "inlines": [run]}
    return {**block, "separator": True} if separator else block


def _run(text: str, **style: Any) -> dict[str, Any]:
    return {"type": "TextRun", "text": text or "-", **style}


def _markdown(text: str) -> dict[str, Any]:
    return {"type": "TextBlock", "text": text or "-", "wrap": True}
