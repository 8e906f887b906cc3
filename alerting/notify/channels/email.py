"""Alerts as mail. Pure.

The Message-ID is made of the message's id and so stays the same over retries; mails of one
incident refer to one thread, so that a mail program shows the resolution under the firing.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from meterline.alerting.notify.core.messages import filled, in_order
from meterline.alerting.notify.core.outbox import Job
from meterline.schemas.policy_notify import EmailChannel

SUBJECT_LENGTH_MAX = 150
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
        now_ms: the present, for the Date header.
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
