"""A kind of channel that this test adds: one class and one entry of the registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import pytest
from typing_extensions import override

from meterline.alerting.notify.channels.base import (
    Channel,
    Message,
    Secrets,
    post,
    required,
)
from meterline.alerting.notify.channels.registry import (
    CHANNEL_KINDS,
    bound_channels,
    unreadable,
)
from meterline.alerting.notify.core.messages import compact_json, incident_key, message_id
from meterline.alerting.notify.core.outbox import Job
from meterline.alerting.notify.core.rate_limit import RateLimit
from meterline.alerting.notify.core.retry_schedule import Attempt
from meterline.alerting.notify.sending import NotificationSender
from meterline.alerting.rules.registry import RULE_KINDS
from meterline.backends.mail.client import SmtpClient
from meterline.backends.webhook.client import WebhookClient
from meterline.backends.webhook.messages import WebhookAnswer, WebhookRequest
from meterline.control.policy.file import PolicyFileError, parse_policy
from meterline.control.policy.plan import compile_policy
from meterline.schemas.delivery import DeliveryOutcome
from meterline.schemas.policy import NOTIFY_ID, NotifyPolicy, decode_policy, encode_policy
from meterline.schemas.policy_entry import Template
from meterline.schemas.policy_kinds import ChannelEntry, FieldFault, PolicyKinds
from meterline.schemas.policy_notify import ChannelBase
from tests.alerting_story import RESEARCH, Scenario
from tests.webhook_receiver import Answer, running_receiver

NOW_MS = 1_791_201_600_000
ANSWER_SECONDS_MAX = 10


class PagerEntry(ChannelEntry):
    """A pager's fields in the policy file."""

    url_env: str = ""
    digits: str = ""
    title: Template = ""


class PagerChannel(ChannelBase):
    """A pager as published."""

    type: Literal["pager"] = "pager"
    url_env: str
    digits: str = "0"


class Pager(Channel[PagerEntry, PagerChannel]):
    """A gateway that answers 200 to everything and means it only when it says so."""

    name = "pager"
    entry = PagerEntry
    published = PagerChannel
    rate_limit = RateLimit(2, 1_000)
    groups = True

    @override
    def check(self, entry: PagerEntry, /) -> Iterator[FieldFault]:
        yield from required(entry, "url_env")
        if not entry.digits.isdigit():
            yield "digits", "must be digits"

    @override
    def request(
        self, channel: PagerChannel, message: Message, secrets: Secrets, /
    ) -> WebhookRequest:
        body = {"to": channel.digits, "text": message.job.alert.summary}
        return post(channel, message, secrets["url_env"], compact_json(body))

    @override
    def judge(self, answer: WebhookAnswer, /) -> Attempt:
        if answer.body_start.startswith("busy"):
            return Attempt(DeliveryOutcome.RETRY, answer.status, "busy")
        return super().judge(answer)


CHANNELS: Mapping[str, Channel[Any, Any]] = {**CHANNEL_KINDS, "pager": Pager()}
KINDS = PolicyKinds(channels=CHANNELS, rules=RULE_KINDS)
FILE = """\
version: 1
notify:
  channels:
    - {id: night, type: pager, url_env: PAGER_URL, digits: "117", allow_private_address: true}
    - {id: hook, type: webhook, url_env: HOOK_URL, allow_private_address: true}
  routes:
    - {id: all, channels: [night, hook]}
"""


def published() -> NotifyPolicy:
    """The policy of the file, as a worker reads it from the topic."""
    compiled = compile_policy(parse_policy(FILE, "p", KINDS), KINDS)[NOTIFY_ID]
    read = decode_policy(encode_policy(compiled))
    assert isinstance(read, NotifyPolicy)
    assert read == compiled
    return read


def a_message() -> Message:
    """One alert."""
    story = Scenario("2026-10-05T12:00:00Z")
    story.policy(RESEARCH, month="100")
    story.spend(RESEARCH, "92")
    alerts = (story.alerts[0],)
    return Message(Job(message_id(alerts), "x", alerts, incident_key(alerts[0])), (), NOW_MS)


def test_it_compiles_and_is_sent() -> None:
    """Its fields reach the record, its request the receiver, its judgement the attempt."""
    bound = bound_channels(published(), CHANNELS)["night"]
    assert bound.published == PagerChannel(
        id="night", url_env="PAGER_URL", digits="117", allow_private_address=True
    )
    assert (bound.traits.rate_limit, bound.traits.groups) == (RateLimit(2, 1_000), True)
    with running_receiver() as receiver:
        url = receiver.url("/pager", Answer(200, body=b"busy, try again"), Answer(200, body=b"ok"))
        sender = NotificationSender(WebhookClient(1), SmtpClient(1), {"PAGER_URL": url}.get)
        try:
            busy, taken = (
                sender.send(bound, a_message()).result(ANSWER_SECONDS_MAX) for _ in range(2)
            )
        finally:
            sender.close()
        assert b'"to":"117"' in receiver.of("/pager")[0].body
    assert (busy.outcome, busy.error) == (DeliveryOutcome.RETRY, "busy")
    assert taken.outcome is DeliveryOutcome.DELIVERED


@pytest.mark.parametrize(
    ("old", "new", "path", "reason"),
    [
        ('digits: "117"', "digits: x", "night].digits", "must be digits"),
        ("url_env: PAGER_URL, ", "", "night].url_env", "is required for a pager channel"),
        ("PAGER_URL", "https://secret", "night].url_env", "never the secret"),
        ('digits: "117"', 'digits: "1", title: "{{ no }}"', "night].title", "no variable 'no'"),
        ('digits: "117"', 'digits: "1", port: 1', "night].port", "not a field of a pager channel"),
        ("type: pager", "type: pigeon", "night].type", " or 'pager'; got 'pigeon'"),
    ],
)
def test_it_is_checked_where_it_stands(old: str, new: str, path: str, reason: str) -> None:
    """The compiler's checks and its own name field and reason, and quote no secret."""
    assert FILE.count(old) == 1
    with pytest.raises(PolicyFileError) as refused:
        parse_policy(FILE.replace(old, new), "p", KINDS)
    (fault,) = refused.value.faults
    assert fault.path == f"notify.channels[{path}"
    assert reason in fault.reason
    assert "https" not in fault.reason


def test_a_version_without_it_delivers_what_it_can() -> None:
    """In a rolling upgrade the unknown channel waits with its reason, and the others work."""
    channels = bound_channels(published())
    assert unreadable(channels) == {"night": "this version has no channels of type pager"}
    with running_receiver() as receiver:
        secrets = {"PAGER_URL": receiver.url("/pager"), "HOOK_URL": receiver.url("/hook")}
        sender = NotificationSender(WebhookClient(1), SmtpClient(1), secrets.get)
        try:
            sent = {
                name: sender.send(channels[name], a_message()).result(ANSWER_SECONDS_MAX)
                for name in ("night", "hook")
            }
        finally:
            sender.close()
    assert sent["night"].outcome is DeliveryOutcome.RETRY
    assert sent["night"].error == "this version has no channels of type pager"
    assert sent["hook"].outcome is DeliveryOutcome.DELIVERED


def test_a_known_type_with_fields_of_another_version_waits_too() -> None:
    """A record that does not fit its kind is reported without quoting it."""
    record = encode_policy(published()).replace(b'"digits":"117"', b'"digits":["T0K3N"]')
    policy = decode_policy(record)
    assert isinstance(policy, NotifyPolicy)
    reasons = unreadable(bound_channels(policy, CHANNELS))
    assert list(reasons) == ["night"]
    assert "T0K3N" not in reasons["night"]


@pytest.mark.parametrize("kind", CHANNEL_KINDS.values(), ids=CHANNEL_KINDS)
def test_every_kind_publishes_the_fields_of_its_entry(kind: Channel[Any, Any]) -> None:
    """What the file may write, the published model has, secrets' names among it."""
    assert kind.fields <= kind.published.model_fields.keys()
    assert kind.published.model_fields["type"].default == kind.name
