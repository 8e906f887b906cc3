"""A pipeline whose broker forgot everything: stopped or killed, started again, rebuilt."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from meterline.app.clock import now_ms
from meterline.app.settings import load_settings
from meterline.app.wiring import clickhouse_config, kafka_config
from meterline.backends.clickhouse.client import Client
from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.producer import Producer
from meterline.backends.kafka.reader import TopicReader
from meterline.relay.gate import Admission, GateRequest
from meterline.relay.lanes import encode_batch
from meterline.schemas.alert import AlertStatus, RuleType, decode_alert
from meterline.schemas.codec import encode
from meterline.schemas.topics import KEPT_TOPICS, Topic
from meterline.schemas.usage import UsageEvent
from tests.pipeline import Pipeline, eventually, running_pipeline, running_relay

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
SINK_GROUP = "meterline-sink"
LANE = "relay-rebuild/boot/1"
HERO = GateRequest("acme", "k-hero", "gpt-4.1", department="research")


def batch(seq: int, time_ms: int) -> bytes:
    """One event of eight dollars for the research department, as a relay would seal it."""
    event = UsageEvent(
        id=f"rebuild-{seq}:1",
        time_ms=time_ms,
        organisation="acme",
        department="research",
        key="k-hero",
        provider="openai",
        model="gpt-4.1",
        output_tokens=1_000_000,
    )
    return encode_batch(LANE, seq, [encode(event)])


def send(pipeline: Pipeline, *values: bytes) -> None:
    producer = Producer(kafka_config(load_settings(pipeline.data_dir), "test"))
    try:
        for value in values:
            producer.send(Topic.USAGE_EVENTS, LANE.encode(), value, partition=1)
        producer.flush(10)
    finally:
        producer.close()


def query(pipeline: Pipeline, sql: str) -> list[tuple[Any, ...]]:
    client = Client(clickhouse_config(load_settings(pipeline.data_dir)))
    try:
        return client.query(sql)
    finally:
        client.close()


def research(pipeline: Pipeline) -> dict[str, Any]:
    lines = pipeline.json("status")["departments"]
    return next(line for line in lines if line["scope"] == "department:acme/research")


def fired(pipeline: Pipeline) -> list[str]:
    """The dedup keys of all firings on the topic, but for those about the pipeline itself.

    Lag, silence and the like depend on how loaded the machine is.
    """
    reader = TopicReader(kafka_config(load_settings(pipeline.data_dir), "test"), [Topic.ALERTS])
    try:
        alerts = [decode_alert(record.value or b"") for record in reader.read_to_end(20)]
    finally:
        reader.close()
    return [
        alert.dedup_key
        for alert in alerts
        if alert.status is AlertStatus.FIRING and alert.rule_type is not RuleType.PIPELINE
    ]


def deliveries(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    return query(
        pipeline,
        "SELECT message_id, channel, attempt, at FROM deliveries FINAL "
        "WHERE NOT startsWith(dedup_key, 'pipeline.') ORDER BY ALL",
    )


def replay(pipeline: Pipeline, truth: Path, seed: int) -> None:
    pipeline.json(
        *("replay", "--format", "synthetic", "--speed", "0", "--limit", "3000"),
        *("--organisation", "replayed", "--duplicates", "0.02", "--late", "0.02"),
        *("--seed", str(seed), "--truth", str(truth)),
    )


def assert_exact(pipeline: Pipeline, truth: Path) -> None:
    done = pipeline.cli("verify", "--truth", str(truth), "--wait", "60", "--json", check=False)
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["streams_diff_nano_usd"] == 0


def unstored(pipeline: Pipeline) -> int:
    """Records that the sink has not stored yet, of the topics that a rebuild needs."""
    admin = Admin(kafka_config(load_settings(pipeline.data_dir), "test"))
    try:
        lags = [admin.group_lag(SINK_GROUP, topic) for topic in (Topic.USAGE_EVENTS, *KEPT_TOPICS)]
    finally:
        admin.close()
    return sum(behind for lag in lags for behind in (lag or {0: 1}).values())


def kill_all(pipeline: Pipeline) -> None:
    """SIGKILL to every process of the pipeline, as a power cut would."""
    root = psutil.Process(pipeline.process.pid)
    for process in [root, *root.children(recursive=True)]:
        process.send_signal(signal.SIGKILL)
    pipeline.process.wait()


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_restart_loses_nothing_and_repeats_nothing(tmp_path: Path, end: str) -> None:
    """Totals, breaker, lanes and alerts go on where they were, and new traffic is exact."""
    data, first, second = tmp_path / "data", tmp_path / "first.json", tmp_path / "second.json"
    sent_ms = now_ms()
    with running_pipeline(data) as pipeline:
        replay(pipeline, first, seed=1)
        send(pipeline, batch(1, sent_ms), batch(2, sent_ms))
        assert_exact(pipeline, first)
        eventually(lambda: research(pipeline)["breaker"] == "open", "the breaker")
        eventually(lambda: len(deliveries(pipeline)) == len(fired(pipeline)), "the deliveries")
        before, published, log = research(pipeline), fired(pipeline), deliveries(pipeline)
        assert len(published) == len(set(published))
        if end == "killed":
            # What only the memory of the broker holds dies with it, as documented.
            eventually(lambda: unstored(pipeline) == 0, "all is stored")
            kill_all(pipeline)
    with running_pipeline(data) as pipeline:
        assert load_settings(pipeline.data_dir).log_epoch == 1
        with running_relay(pipeline, "after", tmp_path / "spool") as relay:
            assert relay.decide(HERO).admission is Admission.REJECT
        assert_exact(pipeline, first)
        # A relay that lost the answer sends its last batch again, then the next one.
        send(pipeline, batch(2, sent_ms), batch(3, sent_ms), batch(3, sent_ms))
        replay(pipeline, second, seed=2)
        assert_exact(pipeline, second)
        assert_exact(pipeline, first)
        eventually(lambda: research(pipeline)["events"] == 3, "the third batch")
        after = research(pipeline)
        assert (before["spent_usd"], after["spent_usd"]) == ("16.000000000", "24.000000000")
        assert sorted(fired(pipeline)) == sorted(published)
        assert deliveries(pipeline) == log
