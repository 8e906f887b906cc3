"""On-call's commands against a whole pipeline: routes, silences, the delivery log, replays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from meterline.app.settings import load_settings
from meterline.app.wiring import kafka_config
from meterline.backends.kafka.producer import Producer
from meterline.schemas.alert import Alert, encode_alert
from meterline.schemas.topics import Topic
from tests.alerting_story import Scenario
from tests.channel_receivers import documents, slack
from tests.pipeline import SOON_SECONDS, Pipeline, eventually, running_pipeline
from tests.webhook_receiver import SECRET, Answer, Receiver, running_receiver

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """Slack, a customer's webhook, and another customer's."""
    with running_receiver() as running:
        yield running


@pytest.fixture(scope="module")
def pipeline(
    receiver: Receiver, tmp_path_factory: pytest.TempPathFactory, kafka_kind: str
) -> Iterator[Pipeline]:
    """A pipeline whose alerts go to a grouped Slack channel and to a webhook that refuses once."""
    folder = tmp_path_factory.mktemp("notify")
    document = {
        "version": 1,
        "organisations": [{"id": "acme", "departments": [{"id": "research"}]}],
        "notify": {
            "channels": [
                {
                    "id": "chat",
                    "type": "slack",
                    "url_env": "METERLINE_SECRET_CHAT",
                    "allow_private_address": True,
                },
                {
                    "id": "hook",
                    "url": receiver.url("/hook", Answer(404)),
                    "secret_env": "METERLINE_SECRET_HOOK",
                    "allow_private_address": True,
                },
            ],
            "routes": [
                {
                    "id": "everything",
                    "channels": ["chat", "hook"],
                    "group_by": ["organisation"],
                    "group_wait_seconds": 1,
                    "group_interval_seconds": 1,
                }
            ],
        },
    }
    file = folder / "policy.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    secrets = {
        "METERLINE_SECRET_CHAT": slack(receiver, "/chat"),
        "METERLINE_SECRET_HOOK": SECRET,
    }
    arguments = ("--kafka", kafka_kind, "--policy", str(file))
    with running_pipeline(folder / "data", *arguments, environment=secrets) as running:
        yield running


def publish(pipeline: Pipeline, *departments: str) -> list[Alert]:
    """Alerts of departments that have used their budget up, of a rule that is not ours.

    The alerts worker answers for those of its own rules: it would resolve them at once.
    """
    story = Scenario("2026-10-05T12:00:00Z")
    for each in departments:
        story.policy(f"department:acme/{each}", month="1")
        story.spend(f"department:acme/{each}", "0.8")
    producer = Producer(kafka_config(load_settings(pipeline.data_dir), "test"))
    try:
        alerts = [alert.model_copy(update={"rule_id": "partner"}) for alert in story.alerts]
        for alert in alerts:
            producer.send(Topic.ALERTS, alert.dedup_key.encode(), encode_alert(alert))
        producer.flush(SOON_SECONDS)
    finally:
        producer.close()
    return alerts


def listed(pipeline: Pipeline, *arguments: str) -> list[dict[str, Any]]:
    """Rows of `deliveries list`."""
    rows: list[dict[str, Any]] = pipeline.json("deliveries", "list", *arguments)["deliveries"]
    return rows


def said_of(pipeline: Pipeline, object_id: str) -> list[str]:
    """The reasons in the audit log of one object."""
    entries = [json.loads(line) for line in pipeline.cli("audit", "log").stdout.splitlines()]
    return [entry["reason"] for entry in entries if entry["object_id"] == object_id]


def test_on_call_follows_silences_and_replays(pipeline: Pipeline, receiver: Receiver) -> None:
    """From a group in Slack over a refused webhook to its replay, and a silence and its end."""
    # A group is one message.
    publish(pipeline, "research", "sales")
    eventually(lambda: documents(receiver, "/chat"), "the message in Slack")
    assert "2 alerts" in documents(receiver, "/chat")[0]["blocks"][0]["text"]["text"]

    # The log says who was refused, and what.
    refused = eventually(lambda: listed(pipeline, "--outcome", "failed"), "the refusal in the log")
    assert [(row["channel"], row["http_status"]) for row in refused] == [("hook", 404)]
    name = refused[0]["message_id"]
    shown = pipeline.cli("deliveries", "show", name).stdout
    assert "answered 404" in shown
    assert "has spent $0.80" in shown

    # Again to the same channel, by the worker, under the same id.
    pipeline.cli("deliveries", "replay", "--failed")
    eventually(lambda: not listed(pipeline, "--outcome", "failed"), "the replay in the log")
    first, *_, again = [
        request for request in receiver.of("/hook") if request.headers["webhook-id"] == name
    ]
    assert first.body == again.body
    assert again.verified()

    # To another URL, now, guarded.
    url = receiver.url("/elsewhere")
    guarded = pipeline.cli("deliveries", "replay", name, "--to", url, check=False)
    assert guarded.returncode == 1
    assert receiver.of("/elsewhere") == []
    sent = pipeline.json(
        *("deliveries", "replay", name, "--to", url, "--allow-private-address", "--channel", "hook")
    )
    assert [one["outcome"] for one in sent["replayed"]] == ["delivered"]
    assert receiver.of("/elsewhere")[0].headers["webhook-id"] == name

    # A silence keeps an alert back; its end lets it through.
    silence = pipeline.json(
        *("silence", "add", "department=legal", "--for", "1h", "--reason", "migration")
    )
    assert pipeline.json("silence", "list")["silences"][0]["reason"] == "migration"
    route = pipeline.json("alerts", "route", "department:acme/legal")
    assert route["muted_by"].startswith(f"silence {silence['id']}")
    publish(pipeline, "legal")
    eventually(lambda: listed(pipeline, "--outcome", "muted"), "the muted record")
    pipeline.cli("silence", "expire", silence["id"])
    eventually(lambda: not listed(pipeline, "--outcome", "muted"), "the delivery after the silence")
    notified = [json.loads(request.body)["data"]["scope"] for request in receiver.of("/hook")]
    assert notified.count("department:acme/legal") == 1

    eventually(
        lambda: (
            said_of(pipeline, f"silence:{silence['id']}") == ["migration", "expired by an operator"]
        ),
        "both steps in the audit log",
    )

    # A policy is applied without ending silences, which are not the file's.
    plan = pipeline.cli("silence", "list", "--all").stdout
    assert silence["id"] in plan
    assert "expired" in plan
