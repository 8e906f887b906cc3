"""Slack messages in Block Kit. Pure.

Limits are Slack's: 50 blocks, 3,000 characters a section, 150 a header, and about 13,000 in all,
which is not documented and answered with msg_blocks_too_long.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from typing_extensions import override

from meterline.alerting.notify.channels.base import Channel, Message, Secrets, cut, post, required
from meterline.alerting.notify.core.messages import (
    alert_view,
    compact_json,
    driver_text,
    filled,
    in_order,
)
from meterline.alerting.notify.core.rate_limit import RateLimit
from meterline.backends.webhook.messages import WebhookRequest
from meterline.schemas.alert import Alert, AlertStatus, Severity
from meterline.schemas.policy_entry import Template
from meterline.schemas.policy_kinds import ChannelEntry, FieldFault
from meterline.schemas.policy_notify import ChannelBase

HEADER_LENGTH_MAX = 150
SECTION_LENGTH_MAX = 2_900
# An alert's section and context have at most some 1,200 characters as they are sent, entities
# included (`&` in a name is five): ten of them stay below Slack's sum.
ALERTS_SHOWN_MAX = 10
SUMMARY_LENGTH_MAX = 600
NAME_LENGTH_MAX = 90
"""Of the key and of the model that drove an alert: what they spent is never cut."""
ACTION_LENGTH_MAX = 200
FACTS_LENGTH_MAX = 150
TITLE = (
    "{% if status == 'resolved' %}Resolved{% else %}{{ severity | capitalize }}{% endif %}: "
    "{% if count == 1 %}{{ alert.scope }}{% else %}{{ count }} alerts{% endif %}"
)

_SIGNS = {
    Severity.INFO: ":large_blue_circle:",
    Severity.WARNING: ":large_yellow_circle:",
    Severity.ERROR: ":large_orange_circle:",
    Severity.CRITICAL: ":red_circle:",
}
_RESOLVED_SIGN = ":large_green_circle:"
_CUT_ENTITY = re.compile("&[a-z]*…$")


def slack_body(alerts: Sequence[Alert], channel: str, title: str = "", text: str = "") -> bytes:
    """The request body for an incoming webhook.

    Args:
        alerts: of one message, at least one.
        channel: the channel's id.
        title: the channel's template; empty for the built-in one.
        text: the channel's template, mrkdwn; empty for one section per alert.
    """
    ordered = in_order(alerts)
    heading = filled(title, TITLE, ordered, channel) or ordered[0].scope
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": _plain(cut(heading, HEADER_LENGTH_MAX))}
    ]
    if text:
        # The template's own marks stay; the values in it can mention and link nothing.
        body = filled(text, "{{ alert.summary }}", ordered, channel, escaped)
        blocks.append(_section(_whole_entities(body, SECTION_LENGTH_MAX) or "-"))
    else:
        for alert in ordered[:ALERTS_SHOWN_MAX]:
            blocks += _alert_blocks(alert)
        if len(ordered) > ALERTS_SHOWN_MAX:
            blocks.append(_section(f"_and {len(ordered) - ALERTS_SHOWN_MAX} more_"))
    # What a phone's lock screen shows.
    fallback = _escaped(f"{heading}: {ordered[0].summary}", SECTION_LENGTH_MAX)
    return compact_json({"text": fallback, "blocks": blocks})


def escaped(text: str) -> str:
    """Text that Slack shows as it is: no mention, no link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _escaped(text: str, length: int) -> str:
    """`escaped`, at most `length` characters as they are sent."""
    return _whole_entities(escaped(text), length)


def _whole_entities(text: str, length: int) -> str:
    """Cut after escaping, which lengthens, and never inside `&amp;`."""
    return _CUT_ENTITY.sub("…", cut(text, length)) if len(text) > length else text


def _alert_blocks(alert: Alert) -> list[dict[str, Any]]:
    view = alert_view(alert)
    is_resolved = alert.status is AlertStatus.RESOLVED
    sign = _RESOLVED_SIGN if is_resolved else _SIGNS[alert.severity]
    lines = [f"{sign} *{_escaped(alert.summary, SUMMARY_LENGTH_MAX)}*"]
    if not is_resolved:
        if driver := driver_text(alert, lambda name: _escaped(name, NAME_LENGTH_MAX)):
            lines.append(f"Driven by {driver}")
        lines.append(_escaped(str(view["action"]), ACTION_LENGTH_MAX))
    facts = [f"`{alert.rule_id}`", alert.severity.value, f"since {view['starts_at']}"]
    if is_resolved:
        facts.append(f"ended {view['ends_at']}")
    elif view["resets_at"]:
        facts.append(f"resets {view['resets_at']}")
    if alert.reminder:
        facts.append(f"reminder {alert.reminder}")
    if alert.commands:
        facts.append("throttled")
    context = {"type": "mrkdwn", "text": _escaped(" · ".join(facts), FACTS_LENGTH_MAX)}
    return [_section("\n".join(lines)), {"type": "context", "elements": [context]}]


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text, "emoji": True}


class SlackChannel(ChannelBase):
    """A Slack incoming webhook; its URL is a secret."""

    type: Literal["slack"] = "slack"
    url_env: str


class SlackEntry(ChannelEntry):
    """Its fields in the policy file."""

    url_env: str = ""
    title: Template = ""
    text: Template = ""


class Slack(Channel[SlackEntry, SlackChannel]):
    """An incoming webhook of Slack."""

    name = "slack"
    entry = SlackEntry
    published = SlackChannel
    rate_limit = RateLimit(1, 1_000)
    """One message a second and channel (docs.slack.dev, rate limits)."""
    groups = True

    @override
    def check(self, entry: SlackEntry, /) -> Iterator[FieldFault]:
        """The variable of the URL is named: the URL is the secret."""
        yield from required(entry, "url_env")

    @override
    def request(
        self, channel: SlackChannel, message: Message, secrets: Secrets, /
    ) -> WebhookRequest:
        """A POST of blocks to the incoming webhook."""
        body = slack_body(message.job.alerts, channel.id, channel.title, channel.text)
        return post(channel, message, secrets["url_env"], body)
