"""Every channel against a server that behaves as the real one does."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from meterline.alerting.notify.channels.alertmanager import AlertmanagerChannel
from meterline.alerting.notify.channels.email import EmailChannel
from meterline.alerting.notify.channels.pagerduty import PagerDutyChannel
from meterline.alerting.notify.channels.registry import bound_channels
from meterline.alerting.notify.channels.slack import SlackChannel
from meterline.alerting.notify.core.responses import mail_outcome_of
from meterline.alerting.notify.sending import NotificationSender
from meterline.backends.mail.client import SmtpClient
from meterline.backends.webhook.client import WebhookClient
from meterline.schemas.alert import AlertStatus, Explanation, TopContributor
from meterline.schemas.delivery import DeliveryOutcome
from meterline.schemas.policy import NotifyPolicy
from tests.alerting_story import RESEARCH, Scenario
from tests.channel_receivers import (
    BEARER,
    PAGERDUTY_KEY,
    alertmanager,
    documents,
    pagerduty,
    slack,
)
from tests.channel_sending import ANSWER_SECONDS_MAX, Sendable, send
from tests.mail_server import PASSWORD, USERNAME, Mailbox, running_mail_server, server_tls
from tests.webhook_receiver import Answer, Receiver, running_receiver

SECRETS: dict[str, str] = {
    "PD_KEY": PAGERDUTY_KEY,
    "AM_TOKEN": BEARER,
    "MAIL_PASSWORD": PASSWORD,
    "MAIL_WRONG": "wrong",
}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """One server for all tests; each uses a path of its own."""
    with running_receiver() as running:
        yield running


@pytest.fixture(scope="module")
def mailbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailbox]:
    """One mail server for all tests."""
    with running_mail_server(tmp_path_factory.mktemp("mail")) as running:
        yield running


@pytest.fixture
def sender(mailbox: Mailbox) -> Iterator[NotificationSender]:
    """A sender with short timeouts that trusts the mail server."""
    opened = NotificationSender(WebhookClient(1), SmtpClient(2, mailbox.ca_file), SECRETS.get)
    yield opened
    opened.close()


@pytest.fixture
def story() -> Scenario:
    """A department with a budget of 100 dollars."""
    scenario = Scenario("2026-10-05T12:00:00Z")
    scenario.policy(RESEARCH, month="100")
    return scenario


def slack_at(url: str, sender: NotificationSender, **more: str) -> Sendable:
    """A Slack channel whose URL is a secret."""
    SECRETS["SLACK_URL"] = url
    fields = {"id": "x", "url_env": "SLACK_URL", "allow_private_address": True, **more}
    channel = SlackChannel.model_validate(fields)
    return Sendable(sender, bound_channels(NotifyPolicy(channels=(channel,)))["x"])


def pagerduty_at(url: str, sender: NotificationSender) -> Sendable:
    """A PagerDuty channel."""
    channel = PagerDutyChannel(
        id="x", url=url, routing_key_env="PD_KEY", allow_private_address=True
    )
    return Sendable(sender, bound_channels(NotifyPolicy(channels=(channel,)))["x"])


def mail_to(mailbox: Mailbox, sender: NotificationSender, **more: object) -> Sendable:
    """A mail channel."""
    fields = {
        "id": "x",
        "host": "localhost",
        "port": mailbox.port,
        "sender": "meterline@acme.test",
        "recipients": ("ops@acme.test",),
        "username": USERNAME,
        "password_env": "MAIL_PASSWORD",
        "allow_private_address": True,
        **more,
    }
    channel = EmailChannel.model_validate(fields)
    return Sendable(sender, bound_channels(NotifyPolicy(channels=(channel,)))["x"])


def test_slack_takes_the_blocks(
    receiver: Receiver, sender: NotificationSender, story: Scenario
) -> None:
    """A message has a title, what happened, what to do, and a text for a lock screen."""
    story.spend(RESEARCH, "92")
    channel = slack_at(slack(receiver, "/slack-one"), sender)
    assert send(channel, story.alerts[0]).outcome is DeliveryOutcome.DELIVERED
    (document,) = documents(receiver, "/slack-one")
    header, section, context = document["blocks"]
    assert header["text"]["text"] == f"Error: {RESEARCH}"
    assert "has spent $92.00" in section["text"]["text"]
    assert "meterline explain" in section["text"]["text"]
    assert "budget_month" in context["elements"][0]["text"]
    assert "$92.00" in document["text"]


@pytest.mark.parametrize("letter", ["k", "&", "<", "研"])
def test_slack_takes_a_group_of_many(
    receiver: Receiver, sender: NotificationSender, letter: str
) -> None:
    """Fifty alerts are one message within Slack's limits, the loudest shown, whatever the names."""
    story = Scenario("2026-10-05T12:00:00Z")
    for number in range(50):
        scope = f"key:acme/{letter * 150}-{number}"
        story.policy(scope, month="100")
        story.spend(scope, "100" if number == 49 else "50")
    path = f"/slack-many-{ord(letter)}"
    channel = slack_at(slack(receiver, path), sender)
    assert send(channel, *story.alerts).outcome is DeliveryOutcome.DELIVERED
    (document,) = documents(receiver, path)
    assert document["blocks"][0]["text"]["text"] == "Critical: 50 alerts"
    loudest = document["blocks"][1]["text"]["text"]
    assert loudest.startswith(":red_circle: *")
    # A name that is escaped to more than fits is cut itself.
    assert letter in "&<" or "-49" in loudest
    assert not re.search(r"&[a-z]*…", json.dumps(document, ensure_ascii=False))
    assert document["blocks"][-1]["text"]["text"] == "_and 40 more_"


def test_slack_shows_what_the_driver_spent_whatever_its_name(
    receiver: Receiver, sender: NotificationSender, story: Scenario
) -> None:
    """A long or escaped name of a key or model is cut itself, not the amounts that follow it."""
    story.spend(RESEARCH, "92")
    driver = TopContributor(
        key="&" * 200, model="m" * 200, spent_nano_usd=91_000_000_000, usual_nano_usd=2_500_000_000
    )
    explanation = Explanation(method="cumulative", drivers=(driver,))
    alert = story.alerts[0].model_copy(update={"explanation": explanation})
    send(slack_at(slack(receiver, "/slack-driver"), sender), alert)
    (document,) = documents(receiver, "/slack-driver")
    assert ": $91.00, usually $2.50" in document["blocks"][1]["text"]["text"]


def test_slack_shows_no_mention_that_a_name_smuggles_in(
    receiver: Receiver, sender: NotificationSender, story: Scenario
) -> None:
    """A key called <!channel> pings no member, with the built-in text and with a template."""
    story.spend(RESEARCH, "92")
    alert = story.alerts[0].model_copy(update={"summary": "<!channel> & <http://x|y>"})
    template = "<!here> {{ alert.summary }}"
    shown = ""
    for path, more in (("/mention-1", {}), ("/mention-2", {"text": template})):
        send(slack_at(slack(receiver, path), sender, **more), alert)
        (document,) = documents(receiver, path)
        shown = document["blocks"][1]["text"]["text"]
        assert "<!channel>" not in shown + document["text"]
        assert "&lt;!channel&gt;" in shown
    assert shown.startswith("<!here> "), "the template's own mention stays"


def test_slack_escapes_every_value_of_a_template(
    receiver: Receiver, sender: NotificationSender, story: Scenario
) -> None:
    """A key's name that comes by another field than the summary pings no member either."""
    story.spend(RESEARCH, "92")
    alert = story.alerts[0].model_copy(update={"dedup_key": "<!channel>"})
    template = "{% if alert.dedup_key == '<!channel>' %}{{ alert.dedup_key }}{% endif %}"
    send(slack_at(slack(receiver, "/mention-3"), sender, text=template), alert)
    (document,) = documents(receiver, "/mention-3")
    assert document["blocks"][1]["text"]["text"] == "&lt;!channel&gt;"


@pytest.mark.parametrize(
    ("answer", "outcome", "said"),
    [
        (Answer(400, body=b"invalid_payload"), DeliveryOutcome.REFUSED, "invalid_payload"),
        (Answer(403, body=b"action_prohibited"), DeliveryOutcome.REFUSED, "action_prohibited"),
        (Answer(404, body=b"channel_not_found"), DeliveryOutcome.REFUSED, "channel_not_found"),
        (Answer(410, body=b"channel_is_archived"), DeliveryOutcome.GONE, "channel_is_archived"),
        (Answer(500, body=b"rollup_error"), DeliveryOutcome.RETRY, "rollup_error"),
        (Answer(429, {"retry-after": "7"}), DeliveryOutcome.RETRY, "answered 429"),
        (Answer(302, {"location": "/elsewhere"}), DeliveryOutcome.REFUSED, "answered 302"),
        (Answer(hang=True), DeliveryOutcome.RETRY, "no answer"),
        (Answer(400, body=b"T0K3N in a sentence"), DeliveryOutcome.REFUSED, "answered 400"),
    ],
)
def test_slack_answers_are_understood(
    sender: NotificationSender, story: Scenario, answer: Answer, outcome: DeliveryOutcome, said: str
) -> None:
    """Permanent errors end, 410 disables, 429, 5xx and silence are tried again."""
    story.spend(RESEARCH, "92")
    with running_receiver() as receiver:
        attempt = send(slack_at(slack(receiver, "/T0K3N", answer), sender), story.alerts[0])
        assert receiver.of("/elsewhere") == []
    assert attempt.outcome is outcome
    assert said in attempt.error
    assert "T0K3N" not in attempt.error
    assert attempt.retry_after_seconds == (7 if answer.status == 429 else None)


def test_an_untrusted_certificate_is_no_receiver(tmp_path: Path, story: Scenario) -> None:
    """A server whose certificate no trusted authority signed gets nothing; one of our authority does."""
    story.spend(RESEARCH, "92")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with running_receiver(server_tls(authority)) as receiver:
        for ca_file, outcome in (
            ("", DeliveryOutcome.RETRY),
            (str(tmp_path / "ca.pem"), DeliveryOutcome.DELIVERED),
        ):
            sender = NotificationSender(WebhookClient(2, ca_file), SmtpClient(1), SECRETS.get)
            try:
                attempt = send(slack_at(slack(receiver, "/tls"), sender), story.alerts[0])
            finally:
                sender.close()
            assert attempt.outcome is outcome, attempt.error
        assert len(receiver.of("/tls")) == 1


def test_a_missing_slack_url_waits_for_the_operator(
    sender: NotificationSender, story: Scenario
) -> None:
    """Without its secret a message is not lost, and the log says which variable is missing."""
    story.spend(RESEARCH, "92")
    attempt = send(slack_at("", sender), story.alerts[0])
    assert attempt.outcome is DeliveryOutcome.RETRY
    assert "SLACK_URL is not set" in attempt.error


def test_pagerduty_pages_once_per_incident(
    receiver: Receiver, sender: NotificationSender, story: Scenario
) -> None:
    """75, then 92, then a raised budget: one dedup key, louder, resolved at the end."""
    channel = pagerduty_at(pagerduty(receiver, "/pd-story"), sender)
    story.spend(RESEARCH, "76")
    story.spend(RESEARCH, "16")
    story.policy(RESEARCH, month="900", version=2)
    warned, paged, *resolved = story.alerts
    assert all(alert.status is AlertStatus.RESOLVED for alert in resolved)
    send(channel, warned, firing=(warned,))
    send(channel, paged, firing=(warned, paged))
    for alert in resolved:
        assert send(channel, alert).outcome is DeliveryOutcome.DELIVERED
    events = documents(receiver, "/pd-story")
    assert [event["event_action"] for event in events] == [
        *("trigger", "trigger"),
        *("resolve" for _ in resolved),
    ]
    assert len({event["dedup_key"] for event in events}) == 1
    assert [event["payload"]["severity"] for event in events[:2]] == ["warning", "critical"]
    assert events[1]["payload"]["source"] == RESEARCH
    assert events[1]["payload"]["custom_details"]["action"]


def test_pagerduty_stays_open_while_a_lower_threshold_stands(
    receiver: Receiver, sender: NotificationSender, story: Scenario
) -> None:
    """A late retry does not make an incident quieter, and one of two resolutions not resolved."""
    channel = pagerduty_at(pagerduty(receiver, "/pd-levels"), sender)
    story.spend(RESEARCH, "76")
    story.spend(RESEARCH, "16")
    warned, paged = story.alerts
    over = paged.model_copy(update={"status": AlertStatus.RESOLVED, "id": "over"})
    send(channel, warned, firing=(warned, paged))
    send(channel, over, firing=(warned,))
    late, kept = documents(receiver, "/pd-levels")
    assert late["payload"]["severity"] == "critical"
    assert (kept["event_action"], kept["payload"]["severity"]) == ("trigger", "warning")


def test_pagerduty_takes_the_longest_names(receiver: Receiver, sender: NotificationSender) -> None:
    """A dedup key above 255 characters is hashed, a summary cut at 1,024."""
    scope = f"user:{'o' * 64}/{'u' * 200}"
    story = Scenario("2026-10-05T12:00:00Z")
    story.policy(scope, month="100")
    story.spend(scope, "100")
    alert = story.alerts[0].model_copy(update={"summary": "s" * 2_000})
    channel = pagerduty_at(pagerduty(receiver, "/pd-long"), sender)
    assert send(channel, alert).outcome is DeliveryOutcome.DELIVERED


def test_alertmanager_takes_firing_and_resolution_as_one_alert(
    receiver: Receiver, sender: NotificationSender, story: Scenario
) -> None:
    """The labels, by which Alertmanager identifies alerts, are the same for both."""
    url = alertmanager(receiver, "/am")
    given = AlertmanagerChannel(id="x", url=url, token_env="AM_TOKEN", allow_private_address=True)
    channel = Sendable(sender, bound_channels(NotifyPolicy(channels=(given,)))["x"])
    story.spend(RESEARCH, "92")
    story.policy(RESEARCH, month="900", version=2)
    firing, resolved = story.alerts
    for alert in (firing, resolved.model_copy(update={"ends_at_ms": firing.starts_at_ms + 1})):
        assert send(channel, alert).outcome is DeliveryOutcome.DELIVERED
    (first,), (second,) = documents(receiver, "/am/api/v2/alerts")
    assert first["labels"] == second["labels"]
    assert first["labels"]["alertname"] == "budget_month"
    assert first["labels"]["department"] == "research"
    assert first["endsAt"] == "2026-11-01T00:00:00.000Z", "over with its period at the latest"


def test_mail_goes_out_encrypted(
    mailbox: Mailbox, sender: NotificationSender, story: Scenario
) -> None:
    """STARTTLS, then the password, then the mail; retries keep the Message-ID."""
    story.spend(RESEARCH, "92")
    mailbox.answer = "250 taken"
    channel = mail_to(mailbox, sender)
    for _ in range(2):
        attempt = send(channel, story.alerts[0])
        assert attempt.outcome is DeliveryOutcome.DELIVERED, attempt.error
    first, second = mailbox.mails[-2:]
    assert mailbox.encrypted[-1]
    assert first["Message-ID"] == second["Message-ID"]
    assert first["Auto-Submitted"] == "auto-generated"
    assert str(first["Subject"]).startswith("[error] ")
    body = first.get_payload(decode=True)
    assert isinstance(body, bytes)
    assert "has spent $92.00" in body.decode()
    assert "What to do" in body.decode()


def test_a_name_cannot_add_a_mail_header(
    mailbox: Mailbox, sender: NotificationSender, story: Scenario
) -> None:
    """Line breaks in a scope's name stay in the subject."""
    story.spend(RESEARCH, "92")
    mailbox.answer = "250 taken"
    alert = story.alerts[0].model_copy(update={"summary": "x\r\nBcc: thief@evil.test"})
    assert send(mail_to(mailbox, sender), alert).outcome is DeliveryOutcome.DELIVERED
    assert mailbox.mails[-1]["Bcc"] is None


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("451 try again later", DeliveryOutcome.RETRY),
        ("552 too big", DeliveryOutcome.REFUSED),
    ],
)
def test_mail_answers_are_understood(
    mailbox: Mailbox,
    sender: NotificationSender,
    story: Scenario,
    answer: str,
    outcome: DeliveryOutcome,
) -> None:
    """4xx is for later, 5xx for good."""
    story.spend(RESEARCH, "92")
    mailbox.answer = answer
    attempt = send(mail_to(mailbox, sender), story.alerts[0])
    assert attempt.outcome is outcome
    assert answer[:3] in attempt.error


def test_one_unknown_recipient_keeps_no_other_from_the_mail(
    mailbox: Mailbox, sender: NotificationSender, story: Scenario
) -> None:
    """The mail is delivered, and the log names who was refused."""
    story.spend(RESEARCH, "92")
    mailbox.answer = "250 taken"
    mailbox.recipient_answers = {"gone@acme.test": "550 no such user"}
    channel = mail_to(mailbox, sender, recipients=("ops@acme.test", "gone@acme.test"))
    attempt = send(channel, story.alerts[0])
    assert (attempt.outcome, attempt.error) == (
        DeliveryOutcome.DELIVERED,
        "refused for gone@acme.test",
    )
    only = mail_to(mailbox, sender, recipients=("gone@acme.test",))
    assert send(only, story.alerts[0]).outcome is DeliveryOutcome.REFUSED


def test_a_wrong_mail_password_waits_for_the_operator(
    mailbox: Mailbox, sender: NotificationSender, story: Scenario
) -> None:
    """A refused password is not the end of the message, and is not shown."""
    story.spend(RESEARCH, "92")
    attempt = send(mail_to(mailbox, sender, password_env="MAIL_WRONG"), story.alerts[0])
    assert attempt.outcome is DeliveryOutcome.RETRY
    assert "535" in attempt.error
    assert "wrong" not in attempt.error


def test_a_mail_server_without_starttls_gets_nothing(tmp_path: Path, story: Scenario) -> None:
    """STARTTLS is required, not tried: no attacker in between can take it out."""
    story.spend(RESEARCH, "92")
    with running_mail_server(tmp_path, starttls=False) as plain:
        sender = NotificationSender(WebhookClient(1), SmtpClient(2), SECRETS.get)
        try:
            attempt = send(mail_to(plain, sender, username=""), story.alerts[0])
            clear = send(mail_to(plain, sender, username="", tls="none"), story.alerts[0])
        finally:
            sender.close()
        assert attempt.outcome is DeliveryOutcome.RETRY
        assert clear.outcome is DeliveryOutcome.DELIVERED, clear.error
        assert plain.encrypted == [False]


def test_a_mail_server_without_a_trusted_certificate_gets_nothing(
    mailbox: Mailbox, story: Scenario
) -> None:
    """Without its authority the server's certificate is refused."""
    story.spend(RESEARCH, "92")
    before = len(mailbox.mails)
    sender = NotificationSender(WebhookClient(1), SmtpClient(2), SECRETS.get)
    try:
        attempt = send(mail_to(mailbox, sender), story.alerts[0])
    finally:
        sender.close()
    assert attempt.outcome is DeliveryOutcome.RETRY
    assert len(mailbox.mails) == before


def test_a_private_mail_server_is_forbidden_unless_allowed(
    mailbox: Mailbox, sender: NotificationSender, story: Scenario
) -> None:
    """A mail server in our own network is refused for good."""
    story.spend(RESEARCH, "92")
    attempt = send(mail_to(mailbox, sender, allow_private_address=False), story.alerts[0])
    assert attempt.outcome is DeliveryOutcome.FORBIDDEN
    assert "not public" in attempt.error


def test_a_mail_server_that_hangs_is_given_up(sender: NotificationSender, story: Scenario) -> None:
    """An attempt ends with its time, whatever the server does."""
    story.spend(RESEARCH, "92")
    with running_receiver() as http:
        port = int(http.base_url.rpartition(":")[2])
        began = time.monotonic()
        silent = Mailbox(port=port)
        attempt = send(mail_to(silent, sender), story.alerts[0])
    assert attempt.outcome is DeliveryOutcome.RETRY
    assert time.monotonic() - began < ANSWER_SECONDS_MAX


def test_smtp_codes_are_classified() -> None:
    """As RFC 5321 has it, except the password, which an operator can change."""
    assert mail_outcome_of(250, "") is DeliveryOutcome.DELIVERED
    assert mail_outcome_of(421, "the connection") is DeliveryOutcome.RETRY
    assert mail_outcome_of(550, "the recipients") is DeliveryOutcome.REFUSED
    assert mail_outcome_of(535, "the password") is DeliveryOutcome.RETRY
