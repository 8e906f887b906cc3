"""The whole pipeline as processes: exactness of a replay, and the story of one budget."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from meterline.app.clock import now_ms
from meterline.app.commands.up import sample_policy
from meterline.app.settings import load_settings
from meterline.app.wiring import kafka_config
from meterline.backends.kafka.reader import TopicReader
from meterline.relay.client import RelayClient
from meterline.relay.gate import Admission, GateRequest
from meterline.schemas.alert import AlertStatus, decode_alert
from meterline.schemas.throttle import Applied, BreakerState, decode_ack, decode_command
from meterline.schemas.topics import Topic
from meterline.schemas.usage import UsageEvent
from tests.pipeline import Pipeline, eventually, run_cli, running_relay

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.fixture
def relay(pipeline: Pipeline, tmp_path: Path) -> Iterator[RelayClient]:
    """A relay in this process: another one than the pipeline's processes."""
    with running_relay(pipeline, "relay-it", tmp_path / "spool") as running:
        yield running


def test_a_replay_is_counted_exactly(pipeline: Pipeline, tmp_path: Path) -> None:
    """With duplicates, late and malformed input, truth, streams and ClickHouse are equal."""
    truth = tmp_path / "truth.json"
    sent = pipeline.json(
        *("replay", "--format", "synthetic", "--speed", "0", "--limit", "6000"),
        *("--organisation", "replayed", "--duplicates", "0.02", "--late", "0.02"),
        *("--malformed", "0.001", "--seed", "7", "--truth", str(truth)),
    )
    assert sent["events"] == 6000
    report = pipeline.json("verify", "--truth", str(truth), "--wait", "60")
    first = ["events", "streams_diff_nano_usd", "clickhouse_diff_nano_usd", "missing", "extra"]
    assert list(report)[:5] == first
    assert [report[name] for name in first] == [6000, 0, 0, 0, 0]


def test_verify_sees_a_missing_event(pipeline: Pipeline, tmp_path: Path) -> None:
    """A truth that the pipeline never saw is different, and verify exits with 1."""
    truth = tmp_path / "truth.json"
    pipeline.json(
        *("replay", "--format", "synthetic", "--speed", "0", "--limit", "50"),
        *("--organisation", "other", "--truth", str(truth)),
    )
    pipeline.json("verify", "--truth", str(truth), "--wait", "60")
    text = truth.read_text(encoding="utf-8")
    run_id = json.loads(text)["run_id"]
    forged = tmp_path / "forged.json"
    forged.write_text(text.replace(run_id, "z" * len(run_id)), encoding="utf-8")
    done = pipeline.cli("verify", "--truth", str(forged), "--json", check=False)
    assert done.returncode == 1


def test_one_budget_from_crossing_to_recovery(
    pipeline: Pipeline, relay: RelayClient, tmp_path: Path
) -> None:
    """A used-up budget is alerted, commanded, acknowledged and refused; a raised one admits again.

    All the while another department's requests are admitted.
    """
    scope = "department:acme/research"
    hero = GateRequest("acme", "k-hero", "gpt-4.1", department="research")
    other = GateRequest("acme", "k-other", "gpt-4.1", department="engineering")
    assert relay.decide(hero).admission is Admission.ADMIT
    relay.record(spend("story-1:1", "research", "k-hero"))
    eventually(lambda: relay.decide(hero).admission is Admission.REJECT, "refusal")
    refused = relay.decide(hero)
    assert (refused.scope, refused.http_status, refused.should_retry) == (scope, 402, False)
    assert relay.decide(other).admission is Admission.ADMIT

    reader = TopicReader(
        kafka_config(load_settings(pipeline.data_dir), "it-read"),
        [Topic.ALERTS, Topic.THROTTLE_COMMANDS, Topic.THROTTLE_ACKS],
    )
    try:
        alerts, commands, acks = set(), {}, set()

        def read() -> None:
            for record in reader.poll(0.2):
                assert record.value is not None
                if record.topic == Topic.ALERTS:
                    alert = decode_alert(record.value)
                    alerts.add((alert.scope, alert.threshold, alert.status))
                elif record.topic == Topic.THROTTLE_COMMANDS:
                    command = decode_command(record.value)
                    commands[command.version] = command
                else:
                    ack = decode_ack(record.value)
                    if ack.applied is Applied.ACCEPTED:
                        acks.add((ack.relay, ack.scope, (ack.epoch, ack.seq)))

        def notified(status: AlertStatus) -> bool:
            read()
            return (scope, 100, status) in alerts

        eventually(lambda: notified(AlertStatus.FIRING), "the alert")
        opened = [one for one in commands.values() if one.state is BreakerState.OPEN]
        assert {one.scope for one in opened} == {scope}

        def acknowledged() -> bool:
            read()
            return ("relay-it", scope, opened[-1].version) in acks

        eventually(acknowledged, "the acknowledgement")

        raised = tmp_path / "raised.yaml"
        raised.write_text(raised_policy(), encoding="utf-8")
        assert pipeline.cli("policy", "plan", str(raised), check=False).returncode == 2
        pipeline.cli("policy", "apply", str(raised), "--yes", "--reason", "test")
        eventually(lambda: relay.decide(hero).admission is Admission.ADMIT, "recovery")
        eventually(lambda: notified(AlertStatus.RESOLVED), "the resolution")
        assert relay.decide(other).admission is Admission.ADMIT
        assert {command.scope for command in commands.values()} == {scope}
    finally:
        reader.close()

    def shown() -> bool:
        status = pipeline.json("status")
        line = next(one for one in status["departments"] if one["scope"] == scope)
        return line["events"] == 1 and line["breaker"] == "closed" and not status["breakers"]

    eventually(shown, "the status")


def spend(event_id: str, department: str, key: str) -> UsageEvent:
    """One request of eight dollars."""
    return UsageEvent(
        id=event_id,
        time_ms=now_ms(),
        organisation="acme",
        department=department,
        key=key,
        provider="openai",
        model="gpt-4.1",
        output_tokens=1_000_000,
    )


def raised_policy() -> str:
    """The sample policy with ten times the research department's budget."""
    document = yaml.safe_load(sample_policy().read_text(encoding="utf-8"))
    for department in document["organisations"][0]["departments"]:
        if department["id"] == "research":
            department["budget"]["month_usd"] = "60"
    text: str = yaml.safe_dump(document, sort_keys=False)
    return text


def test_a_second_pipeline_in_the_same_directory_is_refused(pipeline: Pipeline) -> None:
    """Two pipelines on one directory would fight for its data: one line says so."""
    done = run_cli("up", "--kafka-port", "0", "--clickhouse-port", "0", data_dir=pipeline.data_dir)
    assert done.returncode == 1
    assert "already runs" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_busy_port_is_one_line(pipeline: Pipeline, tmp_path: Path) -> None:
    """A taken port is an error that names it, never a traceback."""
    port = pipeline.runtime.bootstrap.rpartition(":")[2]
    done = run_cli("up", "--kafka-port", port, data_dir=tmp_path / "other")
    assert done.returncode == 1
    assert port in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_drains_and_exits_with_zero(pipeline: Pipeline) -> None:
    """The last test of this module stops the pipeline as a person does."""
    assert pipeline.stop() == 0
