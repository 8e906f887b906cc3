"""The `notify` part of the policy file: what is taken, and what is refused where."""

from __future__ import annotations

import pytest

from meterline.alerting.notify.channels.alertmanager import AlertmanagerChannel
from meterline.alerting.notify.channels.email import EmailChannel
from meterline.alerting.notify.channels.pagerduty import PagerDutyChannel
from meterline.alerting.notify.channels.slack import SlackChannel
from meterline.control.policy.file import PolicyFileError, plan
from meterline.operations.policy import compile_policy, parse_policy
from meterline.schemas.policy import NOTIFY_ID, NotifyPolicy
from meterline.schemas.policy_notify import Silence

FULL = """\
version: 1
notify:
  channels:
    - {id: chat, type: slack, url_env: SLACK_URL, fallback: mail, title: "{{ alert.scope }}"}
    - {id: pager, type: pagerduty, routing_key_env: PD_KEY}
    - {id: mail, type: email, host: smtp.acme.test, sender: a@acme.test, recipients: [b@acme.test]}
    - {id: am, type: alertmanager, url: "https://am.acme.test", token_env: AM_TOKEN}
  routes:
    - {id: pages, match: [severity=~error|critical], channels: [pager], continue: true}
    - {id: rest, channels: [chat], group_by: [department], group_wait_seconds: 30}
  inhibit:
    - {id: breaker, source: [rule=breaker], target: [severity=warning]}
  maintenance:
    - {id: upgrade, match: [department=research], author: ana, reason: upgrade, days: [sun],
       start: "02:00", minutes: 90, until: "2027-01-01T00:00:00Z"}
"""


def test_a_full_notify_part_compiles() -> None:
    """Every field is found again, with the defaults of its channel's type."""
    policy = compile_policy(parse_policy(FULL, "p"))[NOTIFY_ID]
    assert isinstance(policy, NotifyPolicy)
    chat, pager, mail, am = policy.channels
    assert isinstance(chat, SlackChannel)
    assert isinstance(pager, PagerDutyChannel)
    assert isinstance(mail, EmailChannel)
    assert isinstance(am, AlertmanagerChannel)
    assert (chat.fallback, chat.title, chat.min_severity) == ("mail", "{{ alert.scope }}", "info")
    assert (pager.min_severity, pager.critical_from_percent) == ("warning", 90)
    assert (mail.port, mail.tls) == (587, "starttls")
    assert [route.keep_looking for route in policy.routes] == [True, False]
    assert policy.inhibit[0].relation == "above"
    assert policy.maintenance[0].until_ms == 1_798_761_600_000


def test_an_open_breaker_mutes_unless_the_file_says_otherwise() -> None:
    """Without `inhibit` the default holds; an empty list turns it off."""
    silent = compile_policy(parse_policy("version: 1", "p"))[NOTIFY_ID]
    off = compile_policy(parse_policy("version: 1\nnotify: {inhibit: []}", "p"))[NOTIFY_ID]
    assert isinstance(silent, NotifyPolicy)
    assert isinstance(off, NotifyPolicy)
    assert [each.id for each in silent.inhibit] == ["open-breaker"]
    assert off.inhibit == ()


# (old, new, path, part of the reason)
_REFUSALS = [
    ("url_env: SLACK_URL, ", "", "notify.channels[chat].url_env", "required for a slack"),
    ("url_env: SLACK_URL", "url_env: https-hooks", "notify.channels[chat].url_env", "never the s"),
    ("type: slack", "type: slack, port: 25", "notify.channels[chat].port", "not a field of a slack"),
    ("fallback: mail", "fallback: nobody", "notify.channels[chat].fallback", "no channel 'nobody'"),
    ("fallback: mail", "fallback: chat", "notify.channels[chat].fallback", "leads back"),
    ("{{ alert.scope }}", "{{ alert.nope }}", "notify.channels[chat].title", "no field 'nope'"),
    ("{{ alert.scope }}", "{{ nope }}", "notify.channels[chat].title", "no variable 'nope'"),
    ("{{ alert.scope }}", "{{ alert.scope", "notify.channels[chat].title", "not a template"),
    ("recipients: [b@acme.test]", "recipients: [b]", "notify.channels[mail].recipients", "not a mail"),
    ("sender: a@acme.test", "sender: a@x.test, tls: none", "notify.channels[mail].tls", "in the clear"),
    ("sender: a@acme.test", "sender: a@x.test, username: u", "notify.channels[mail].username",
     "belong together"),
    ("id: am, type", "id: chat, type", "notify.channels[chat].id", "is there twice"),
    ("id: am, type", "id: log, type", "notify.channels[log].id", "worker's log"),
    ('url: "https://am.acme.test", ', "", "notify.channels[am].url", "is required"),
    ("[severity=~error|critical]", '["severity=~("]', "notify.routes[pages].match", "regular exp"),
    ("[severity=~error|critical]", "[loudness=1]", "notify.routes[pages].match", "not a label"),
    ("channels: [pager]", "channels: [pagr]", "notify.routes[pages].channels", "no channel 'pagr'"),
    ("group_by: [department]", "group_by: [dept]", "notify.routes[rest].group_by", "not a label"),
    ("continue: true", "continu: true", "notify.routes[pages].continu", "did you mean 'continue'"),
    ("target: [severity=warning]", "target: []", "notify.inhibit[breaker].target", "at least one"),
    ('start: "02:00"', 'start: "25:00"', "notify.maintenance[upgrade].start", "time of day"),
    ("2027-01-01T00:00:00Z", "tomorrow", "notify.maintenance[upgrade].until", "with its zone"),
    ("match: [department=research]", "match: []", "notify.maintenance[upgrade].match", "at least"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "path", "reason"), _REFUSALS)
def test_nonsense_is_refused_where_it_stands(old: str, new: str, path: str, reason: str) -> None:
    """Every refusal names the field and what would be right."""
    assert FULL.count(old) == 1
    with pytest.raises(PolicyFileError) as refused:
        parse_policy(FULL.replace(old, new), "p")
    assert [fault.path for fault in refused.value.faults] == [path]
    assert reason in refused.value.faults[0].reason


def test_a_secret_written_by_mistake_is_not_quoted() -> None:
    """A URL with its token in the place of a variable's name stays out of messages."""
    token = "https://hooks.slack.com/services/T0K3N"
    with pytest.raises(PolicyFileError) as refused:
        parse_policy(FULL.replace("SLACK_URL", f'"{token}"'), "p")
    assert "T0K3N" not in str(refused.value)


def test_a_file_neither_ends_nor_shows_silences() -> None:
    """Silences are made by hand: applying a file leaves them as they are."""
    silence = Silence(
        id="s", match=("scope=~.*",), starts_at_ms=0, ends_at_ms=9, author="ana", reason="r"
    )
    desired = compile_policy(parse_policy(FULL, "p"))
    assert plan({**desired, "silence:s": silence}, desired) == ()
