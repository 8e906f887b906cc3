"""Alerts as mail. Pure.

The Message-ID is made of the message's id and so stays the same over retries; mails of one
incident refer to one thread, so that a mail program shows the resolution under the firing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import override

from meterline.alerting.notify.channels.base import Channel, Message, Secrets, required
from meterline.alerting.notify.core.messages import filled, in_order
from meterline.alerting.notify.core.outbox import Job
from meterline.alerting.notify.core.rate_limit import RateLimit
from meterline.backends.mail.messages import MailRequest
from meterline.schemas.policy_entry import Template, Text
from meterline.schemas.policy_kinds import ChannelEntry, FieldFault
from meterline.schemas.policy_notify import ChannelBase

SUBJECT_LENGTH_MAX = 150
# A distribution list is the mail server's business.
RECIPIENTS_MAX = 20
_ADDRESS = re.compile(r"[^@\s<>,;]+@[^@\s<>,;]+", re.ASCII)
TITLE = (
    "[{% if status == 'resolved' %}resolved{% else %}{{ severity }}{% endif %}] "
    "{% if count == 1 %}{{ alert.summary }}{% else %}{{ count }} alerts, first: "
    "{{ alert.summary }}{% endif %}"
)
TEXT = """\
{% for each in alerts %}{{ each.summary }}

  What to do   {{ each.action }}
{% if each.driver %}  Driven by    {{ each.driver }}
{% endif %}  Severity     {{ each.severity }} ({{ each.status }})
  Scope        {{ each.scope }}
  Rule         {{ each.rule }}, threshold {{ each.threshold }} {{ each.threshold_unit }}
  Since        {{ each.starts_at }}{% if each.ends_at %}
  Ended        {{ each.ends_at }}{% endif %}{% if each.resets_at %}
  Resets       {{ each.resets_at }}{% endif %}

{% endfor %}"""
_DOMAIN = "meterline.invalid"


def mail_content(job: Job, channel: EmailChannel, now_ms: int) -> bytes:
    """The whole mail.

    Args:
        job: the message.
        channel: the channel's policy.
        now_ms: UTC ms, for the Date header.
    """
    alerts = in_order(job.alerts)
    title = " ".join(filled(channel.title, TITLE, alerts, channel.id).split())
    mail = EmailMessage(policy=SMTP)
    mail["Subject"] = title[:SUBJECT_LENGTH_MAX]
    mail["From"] = channel.sender
    mail["To"] = ", ".join(channel.recipients)
    mail["Date"] = format_datetime(datetime.fromtimestamp(now_ms // 1000, UTC))
    mail["Message-ID"] = f"<{job.message_id}@{_DOMAIN}>"
    thread = hashlib.sha256(job.queue.encode()).hexdigest()[:32]
    mail["References"] = f"<thread_{thread}@{_DOMAIN}>"
    # Vacation responders and ticket systems leave such mail alone (RFC 3834).
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(filled(channel.text, TEXT, alerts, channel.id) + "\n")
    return mail.as_bytes()


class EmailChannel(ChannelBase):
    """Mail through an SMTP server."""

    type: Literal["email"] = "email"
    host: str
    port: int = 587
    tls: Literal["starttls", "tls", "none"] = "starttls"
    """`starttls` is required and not merely tried; `none` only with allow_private_address."""
    username: str = ""
    password_env: str = ""
    sender: str
    recipients: tuple[str, ...]


class EmailEntry(ChannelEntry):
    """Its fields in the policy file."""

    host: Text = ""
    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    tls: Literal["starttls", "tls", "none"] | None = None
    username: Text = ""
    password_env: str = ""
    sender: Text = ""
    recipients: tuple[Text, ...] = ()
    title: Template = ""
    text: Template = ""


class Email(Channel[EmailEntry, EmailChannel]):
    """Mail through an SMTP server."""

    name = "email"
    entry = EmailEntry
    published = EmailChannel
    rate_limit = RateLimit(60, 60_000)
    """Not a rule of SMTP: more than one mail a second and mailbox is a flood that filters sort out."""
    groups = True

    @override
    def check(self, entry: EmailEntry, /) -> Iterator[FieldFault]:
        """Usable addresses, host and encryption, and a bounded list."""
        for name, addresses in (("sender", (entry.sender,)), ("recipients", entry.recipients)):
            for address in addresses:
                if address and not _ADDRESS.fullmatch(address):
                    yield name, f"{address!r} is not a mail address"
        if len(entry.recipients) > RECIPIENTS_MAX:
            count = len(entry.recipients)
            yield "recipients", f"has {count} addresses, at most {RECIPIENTS_MAX}: use a list"
        if entry.tls == "none" and not entry.allow_private_address:
            yield "tls", "none sends in the clear: only with allow_private_address: true"
        if bool(entry.username) != bool(entry.password_env):
            yield "username", "and password_env belong together: write both or neither"
        elif entry.username and entry.tls == "none":
            yield "tls", "none would send the password in the clear"
        yield from required(entry, "host", "sender", "recipients")

    @override
    def request(self, channel: EmailChannel, message: Message, secrets: Secrets, /) -> MailRequest:
        """One message to all recipients."""
        return MailRequest(
            host=channel.host,
            port=channel.port,
            tls=channel.tls,
            sender=channel.sender,
            recipients=channel.recipients,
            content=mail_content(message.job, channel, message.at_ms),
            username=channel.username,
            password=secrets["password_env"] if channel.username else "",
            allow_private_address=channel.allow_private_address,
        )
