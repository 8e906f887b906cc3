"""The `notify` part of the policy file: what is taken, and what is refused where."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meterline.alerting.notify.channels.alertmanager import AlertmanagerChannel
from meterline.alerting.notify.channels.email import EmailChannel
from meterline.alerting.notify.channels.pagerduty import PagerDutyChannel
from meterline.alerting.notify.channels.registry import CHANNEL_KINDS, bound_channels
from meterline.alerting.notify.channels.slack import SlackChannel
from meterline.control.policy.file import PolicyFileError, plan
from meterline.operations.policy import compile_policy, parse_policy
from meterline.schemas.policy import NOTIFY_ID, NotifyPolicy, decode_policy, encode_policy
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


def faults_of(*channels: str) -> set[tuple[str, str]]:
    """Where a file with these channels is refused, and the first words of why."""
    text = "version: 1\nnotify:\n  channels:\n" + "".join(f"    - {each}\n" for each in channels)
    with pytest.raises(PolicyFileError) as refused:
        parse_policy(text, "p")
    prefix = "notify.channels"
    return {
        (fault.path.removeprefix(prefix), " ".join(fault.reason.split()[:4]))
        for fault in refused.value.faults
    }


_TYPE = ("[a].type", "must be 'webhook', 'slack',")
_VARIABLE = "must be the name"
# (channel, what is found beside its type)
_UNKNOWN_TYPES = [
    ("{id: a, type: pagerduti}", {("[a].url", "is required: write either")}),
    ("{id: a, type: pagerduti, url: 'ftp://x'}", {("[a].url", "must begin with https://")}),
    ("{id: a, type: pagerduti, url: 'https://u:p@x'}", {("[a].url", "carries a user name")}),
    ("{id: a, type: x, url: 'https://x', url_env: U}", {("[a].url", "is required: write either")}),
    ("{id: a, type: x, routing_key_env: deadbeef}", {("[a].routing_key_env", _VARIABLE)}),
    ("{id: a, type: x, password_env: s3cret, port: abc}",
     {("[a].password_env", _VARIABLE), ("[a].port", "must be a whole")}),
    ("{id: a, type: x, host: h, min_severity: loud}",
     {("[a].min_severity", "must be 'info', 'warning',")}),
    ("{id: a, type: x, host: h, fallback: b}", {("[a].fallback", "there is no channel")}),
    ("{id: a, type: x, host: h, fallback: a}", {("[a].fallback", "leads back to 'a'")}),
    ("{id: a, type: x, host: h, hots: h}", {("[a].hots", "is not a known")}),
    ("{id: a, type: x, host: h, title: '{{ nope }}'}", {("[a].title", "there is no variable")}),
    ("{id: a, type: x, host: h, pass_env: deadbeef}",
     {("[a].pass_env", _VARIABLE), ("[a].pass_env", "is not a known")}),
]  # fmt: skip


@pytest.mark.parametrize(("channel", "found"), _UNKNOWN_TYPES)
def test_a_channel_of_unknown_type_is_checked_all_the_same(
    channel: str, found: set[tuple[str, str]]
) -> None:
    """What holds for every channel is found together with the type, and no field is foreign."""
    assert faults_of(channel) == {_TYPE, *found}


def test_ids_of_channels_of_unknown_type_are_checked_and_known() -> None:
    """An empty, missing or repeated id is found, and a route to the channel is not another fault."""
    empty = faults_of("{id: '', type: x, host: h}")
    assert {path for path, _ in empty} == {"[].type", "[].id"}
    missing = faults_of("{type: x, host: h}")
    assert {path for path, _ in missing} == {"[0].type", "[0].id"}
    again = faults_of("{id: a, type: x, host: h}", "{id: a, type: [slack], host: h}")
    assert again == {_TYPE, ("[a].id", "channel 'a' is there")}


@pytest.mark.parametrize("name", sorted(CHANNEL_KINDS))
def test_a_secret_in_the_field_of_another_type_has_both_faults(name: str) -> None:
    """A value that names no variable is found in every `_env` field, quoted in none."""
    fields = {each for kind in CHANNEL_KINDS.values() for each in kind.environment_fields}
    secret = "deadbeef0123"
    written = ", ".join(f"{each}: {secret}" for each in sorted(fields))
    text = f"version: 1\nnotify: {{channels: [{{id: a, type: {name}, {written}}}]}}"
    with pytest.raises(PolicyFileError) as refused:
        parse_policy(text, "p")
    assert secret not in str(refused.value)
    reasons = {(fault.path, fault.reason.split(" (")[0]) for fault in refused.value.faults}
    for each in fields:
        path = f"notify.channels[a].{each}"
        assert (path, "must be the name of an environment variable") in reasons
        foreign = any(where == path and why.startswith("is not a field") for where, why in reasons)
        assert foreign == (each not in CHANNEL_KINDS[name].environment_fields)


@pytest.mark.parametrize("type_", ["slack", "pigeon", "email"])
def test_no_value_that_may_be_secret_is_quoted(type_: str) -> None:
    """URLs and `_env` fields stay out of messages whatever else is wrong with their channel."""
    secret = "T0K3N"
    text = f"""version: 1
notify:
  channels:
    - {{id: a, type: {type_}, url: "ftp://{secret}", url_env: [{secret}], hook_url: "{secret}",
       routing_key_env: {{x: {secret}}}, password_env: "{secret} x", port: many}}
"""
    with pytest.raises(PolicyFileError) as refused:
        parse_policy(text, "p")
    assert secret not in str(refused.value)


def test_a_record_without_a_field_has_its_own_kinds_default_when_it_is_sent() -> None:
    """The worker reads it with the kind's default, where that differs from the common one."""
    text = (
        '{"kind": "notify", "channels": [{"id": "p", "type": "pagerduty", "routing_key_env": "K"}]}'
    )
    policy = decode_policy(text.encode())
    assert isinstance(policy, NotifyPolicy)
    expected = PagerDutyChannel(id="p", routing_key_env="K")
    assert bound_channels(policy)["p"].published.model_dump() == expected.model_dump()


def published_without_defaults(policy: NotifyPolicy) -> NotifyPolicy:
    """As a version published it whose kinds lacked every field that has a default now."""
    record: dict[str, Any] = json.loads(encode_policy(policy))
    for channel in record["channels"]:
        fields = CHANNEL_KINDS[channel["type"]].published.model_fields
        for name, value in list(channel.items()):
            if name != "type" and not fields[name].is_required():
                default = fields[name].get_default(call_default_factory=True)
                if json.loads(json.dumps(default)) == value:
                    del channel[name]
    read = decode_policy(json.dumps(record).encode())
    assert isinstance(read, NotifyPolicy)
    return read


def test_a_record_that_lacks_a_defaulted_field_is_no_change() -> None:
    """A field that a kind got later has its default in older records: a plan is empty."""
    desired = compile_policy(parse_policy(FULL, "p"))
    policy = desired[NOTIFY_ID]
    assert isinstance(policy, NotifyPolicy)
    older = published_without_defaults(policy)
    assert older != policy
    assert plan({**desired, NOTIFY_ID: older}, desired) == ()


def test_a_record_that_lacks_a_field_that_the_file_sets_is_changed() -> None:
    """Only defaults are the same as nothing, and the change holds the record as it was."""
    desired = compile_policy(parse_policy(FULL, "p"))
    policy = desired[NOTIFY_ID]
    assert isinstance(policy, NotifyPolicy)
    older = published_without_defaults(policy)
    set_here = FULL.replace("type: slack", "type: slack, allow_private_address: true")
    (change,) = plan({**desired, NOTIFY_ID: older}, compile_policy(parse_policy(set_here, "p")))
    assert [each.field for each in change.fields] == ["channels[chat]"]
    assert change.before is older
