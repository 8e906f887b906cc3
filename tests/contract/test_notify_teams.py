"""Microsoft Teams against a server that behaves as a workflow or an old connector does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meterline.alerting.notify.channels.registry import bound_channels
from meterline.alerting.notify.channels.teams import TeamsChannel, escaped
from meterline.alerting.notify.sending import NotificationSender
from meterline.backends.mail.client import SmtpClient
from meterline.backends.webhook.client import WebhookClient
from meterline.schemas.delivery import DeliveryOutcome
from meterline.schemas.policy import NotifyPolicy
from tests.alerting_story import RESEARCH, Scenario
from tests.channel_receivers import card_texts, documents, teams
from tests.channel_sending import Sendable, send
from tests.webhook_receiver import Answer, Receiver, running_receiver

SECRETS: dict[str, str] = {}
_FAILED = b"Webhook message delivery failed with error: Microsoft Teams endpoint returned "


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """One server for all tests; each uses a path of its own."""
    with running_receiver() as running:
        yield running


@pytest.fixture
def sender() -> Iterator[NotificationSender]:
    """A sender with a short timeout."""
    opened = NotificationSender(WebhookClient(1), SmtpClient(1), SECRETS.get)
    yield opened
    opened.close()


@pytest.fixture
def story() -> Scenario:
    """A department with a budget of 100 dollars."""
    begun = Scenario("2026-10-05T12:00:00Z")
    begun.policy(RESEARCH, month="100")
    return begun


def teams_at(url: str, sender: NotificationSender, **more: str) -> Sendable:
    """A Teams channel whose URL is a secret."""
    SECRETS["TEAMS_URL"] = url
    fields = {"id": "x", "url_env": "TEAMS_URL", "allow_private_address": True, **more}
    channel = TeamsChannel.model_validate(fields)
    return Sendable(sender, bound_channels(NotifyPolicy(channels=(channel,)))["x"])


def card_of(receiver: Receiver, path: str) -> list[list[str]]:
    """The texts of the one card that came, by element."""
    (document,) = documents(receiver, path)
    return [card_texts(block) for block in document["attachments"][0]["content"]["body"]]


def test_teams_takes_the_card(
    receiver: Receiver, sender: NotificationSender, story: Scenario
) -> None:
    """A message has a title, what happened, what to do and the facts; a 202 is a delivery."""
    story.spend(RESEARCH, "92")
    attempt = send(teams_at(teams(receiver, "/teams-one"), sender), story.alerts[0])
    assert (attempt.outcome, attempt.http_status) == (DeliveryOutcome.DELIVERED, 202)
    title, summary, action, facts = card_of(receiver, "/teams-one")
    assert title == [f"Error: {RESEARCH}"]
    assert "has spent $92.00" in summary[0]
    assert "meterline explain" in action[0]
    assert facts[0].startswith("budget_month · error · since 2026-10-05")


def test_teams_shows_a_resolution(
    receiver: Receiver, sender: NotificationSender, story: Scenario
) -> None:
    """A resolved alert is green, says when it ended, and asks for nothing."""
    story.spend(RESEARCH, "92")
    story.policy(RESEARCH, month="900", version=2)
    send(teams_at(teams(receiver, "/teams-over"), sender), story.alerts[-1])
    (document,) = documents(receiver, "/teams-over")
    title, summary, facts = document["attachments"][0]["content"]["body"]
    assert card_texts(title) == [f"Resolved: {RESEARCH}"]
    assert summary["inlines"][0]["color"] == "Good"
    assert " · ended " in card_texts(facts)[0]


@pytest.mark.parametrize("letter", ["k", "\N{GRINNING FACE}", "\\"])
def test_teams_takes_a_group_of_many(
    receiver: Receiver, sender: NotificationSender, letter: str
) -> None:
    """Fifty alerts are one message within Teams' size, the loudest shown, the rest counted."""
    story = Scenario("2026-10-05T12:00:00Z")
    for number in range(50):
        scope = f"key:acme/k-{number}"
        story.policy(scope, month="100")
        story.spend(scope, "100" if number == 49 else "50")
    alerts = [
        alert.model_copy(update={"summary": f"{alert.summary} {letter * 1_000}"})
        for alert in story.alerts
    ]
    path = f"/teams-many-{ord(letter)}"
    assert send(teams_at(teams(receiver, path), sender), *alerts).outcome is (
        DeliveryOutcome.DELIVERED
    )
    texts = card_of(receiver, path)
    assert texts[0] == ["Critical: 50 alerts"]
    assert "k-49" in texts[1][0]
    shown = sum("has spent" in text for (text,) in texts)
    assert texts[-1] == [f"and {50 - shown} more"]
    assert shown == 10 if letter == "k" else 1 <= shown <= 10


def test_teams_cuts_a_template_that_grows_too_long(
    receiver: Receiver, sender: NotificationSender, story: Scenario
) -> None:
    """A text that no message has room for is cut, not refused."""
    story.spend(RESEARCH, "92")
    alert = story.alerts[0].model_copy(update={"summary": "*\N{GRINNING FACE}" * 8_000})
    channel = teams_at(teams(receiver, "/teams-long"), sender, text="{{ alert.summary }}")
    assert send(channel, alert).outcome is DeliveryOutcome.DELIVERED


def test_teams_shows_no_mention_and_no_link_that_a_name_smuggles_in(
    receiver: Receiver, sender: NotificationSender, story: Scenario
) -> None:
    """A key called <at>all</at> pings no member, and [x](https://y) leads nowhere."""
    story.spend(RESEARCH, "92")
    smuggled = "<at>all</at> [pay](https://evil.test) www.evil.test **now** {{DATE(x)}}"
    alert = story.alerts[0].model_copy(update={"summary": smuggled})
    send(teams_at(teams(receiver, "/teams-plain"), sender), alert)
    (document,) = documents(receiver, "/teams-plain")
    block = document["attachments"][0]["content"]["body"][1]
    assert block["type"] == "RichTextBlock", "reads no Markdown"
    shown = block["inlines"][0]["text"]
    assert shown.replace("\u200b", "") == smuggled
    assert not any(active in shown for active in ("://", "www.", "{{"))
    template = "[runbook](https://wiki.test) {{ alert.summary }}"
    send(teams_at(teams(receiver, "/teams-marks"), sender, text=template), alert)
    ((_,), (text,)) = card_of(receiver, "/teams-marks")
    assert text.startswith("[runbook](https://wiki.test) "), "the template's own link stays"
    value = text.removeprefix("[runbook](https://wiki.test) ")
    assert not any(active in value for active in ("](", "://", "www.", "**", "{{DATE("))
    assert "entities" not in document["attachments"][0]["content"]["msteams"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a_b*c", r"a\_b\*c"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("one\n\n- two", "one - two"),
        ("\\[x](y)", r"\\\[x\]\(y\)"),
        ("plain text, 92 %", "plain text, 92 %"),
    ],
)
def test_teams_escapes_its_markdown(value: str, shown: str) -> None:
    """Each mark has a backslash of its own, and a value stays on its line."""
    assert escaped(value) == shown


@pytest.mark.parametrize(
    ("answer", "outcome", "said", "after_seconds"),
    [
        (Answer(202), DeliveryOutcome.DELIVERED, "", None),
        (Answer(200, body=b"1"), DeliveryOutcome.DELIVERED, "", None),
        (Answer(400, body=b"Bad payload"), DeliveryOutcome.REFUSED, "answered 400", None),
        (Answer(403), DeliveryOutcome.REFUSED, "answered 403", None),
        (Answer(404), DeliveryOutcome.REFUSED, "answered 404", None),
        (Answer(410), DeliveryOutcome.GONE, "answered 410", None),
        (Answer(413), DeliveryOutcome.REFUSED, "answered 413", None),
        (Answer(429, {"retry-after": "7"}), DeliveryOutcome.RETRY, "answered 429", 7),
        (Answer(429), DeliveryOutcome.RETRY, "answered 429", 30),
        (Answer(502), DeliveryOutcome.RETRY, "answered 502", None),
        (Answer(hang=True), DeliveryOutcome.RETRY, "no answer", None),
        (Answer(200, body=_FAILED + b"HTTP error 429 with ContextId T0K3N"),
         DeliveryOutcome.RETRY, "answered 200, and that delivery failed with 429", 30),
        (Answer(200, body=_FAILED + b"HTTP error 413 with ContextId T0K3N"),
         DeliveryOutcome.REFUSED, "failed with 413", None),
        (Answer(200, body=_FAILED + b"nothing"), DeliveryOutcome.RETRY, "failed with 500", None),
    ],
)  # fmt: skip
def test_teams_answers_are_understood(
    sender: NotificationSender,
    story: Scenario,
    answer: Answer,
    outcome: DeliveryOutcome,
    said: str,
    after_seconds: int | None,
) -> None:
    """A failure in the body of a 200 is one; 429 pauses the channel, also without Retry-After."""
    story.spend(RESEARCH, "92")
    with running_receiver() as receiver:
        attempt = send(teams_at(teams(receiver, "/T0K3N", answer), sender), story.alerts[0])
    assert attempt.outcome is outcome
    assert said in attempt.error
    assert bool(attempt.error) is (outcome is not DeliveryOutcome.DELIVERED)
    assert "T0K3N" not in attempt.error
    assert attempt.retry_after_seconds == after_seconds


def test_a_missing_teams_url_waits_for_the_operator(
    sender: NotificationSender, story: Scenario
) -> None:
    """Without its secret a message is not lost, and the log says which variable is missing."""
    story.spend(RESEARCH, "92")
    attempt = send(teams_at("", sender), story.alerts[0])
    assert attempt.outcome is DeliveryOutcome.RETRY
    assert "TEAMS_URL is not set" in attempt.error
