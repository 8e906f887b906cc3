"""Reconciliation and event traces on a whole pipeline, with faults made by the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from meterline.app import wiring
from meterline.app.clock import now_ms
from meterline.app.settings import load_settings
from meterline.app.wiring import clickhouse_config, kafka_config
from meterline.backends.clickhouse.client import Client
from meterline.backends.kafka.producer import Producer
from meterline.operations.drift_alert import DriftWatch
from meterline.relay.lanes import encode_batch
from meterline.schemas.codec import encode
from meterline.schemas.metrics import Metric, NoMeter
from meterline.schemas.periods import Calendar, WindowKind
from meterline.schemas.spend import SnapshotKey, Totals, encode_key, encode_totals
from meterline.schemas.topics import Topic
from meterline.schemas.usage import UsageEvent
from tests.pipeline import Pipeline, eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
SCOPE = "department:acme/support"


class Gauges(NoMeter):
    """Keeps what was set."""

    def __init__(self) -> None:
        self.values: dict[Metric, int] = {}

    @override
    def gauge(self, metric: Metric, value: int) -> None:
        self.values[metric] = value


def event(name: str, tokens: int = 1_000) -> UsageEvent:
    return UsageEvent(
        id=name,
        time_ms=now_ms() // 60_000 * 60_000,
        organisation="acme",
        department="support",
        key="k-support",
        provider="openai",
        model="gpt-4.1",
        output_tokens=tokens,
    )


def send(pipeline: Pipeline, topic: Topic, key: bytes, *values: bytes) -> None:
    producer = Producer(kafka_config(load_settings(pipeline.data_dir), "test"))
    try:
        for value in values:
            producer.send(topic, key, value, partition=0)
        producer.flush(10)
    finally:
        producer.close()


def execute(pipeline: Pipeline, sql: str) -> list[tuple[Any, ...]]:
    client = Client(clickhouse_config(load_settings(pipeline.data_dir)))
    try:
        if sql.lstrip().startswith("SELECT"):
            return client.query(sql)
        client.command(sql)
        return []
    finally:
        client.close()


def reconciled(pipeline: Pipeline, *arguments: str) -> dict[str, Any]:
    done = pipeline.cli("reconcile", *arguments, "--json", check=False)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if report["exact"] or report["repaired"] else 1)
    return report


def test_drift_is_found_and_repaired(pipeline: Pipeline, tmp_path: Path) -> None:
    """What a fault changed on either side is named, replaced and audited; then all is equal."""
    pipeline.json(
        *("replay", "--format", "synthetic", "--speed", "0", "--limit", "3000"),
        *("--organisation", "replayed", "--duplicates", "0.02", "--late", "0.02"),
        *("--malformed", "0.002", "--seed", "3", "--truth", str(tmp_path / "truth.json")),
    )
    lane = "relay-gap/boot/0"
    batches = [encode_batch(lane, seq, [encode(event(f"gap-{seq}"))]) for seq in (1, 2, 5)]
    send(pipeline, Topic.USAGE_EVENTS, lane.encode(), *batches)
    eventually(lambda: reconciled(pipeline)["missing_batches"] == 2, "the gap")
    clean = reconciled(pipeline)
    assert clean["exact"]
    assert clean["gaps"] == [{"lane": lane, "first": 3, "last": 4}]
    assert clean["totals"] > 1_000

    # The streams' side: a total that was not counted.
    month = Calendar("UTC").window(WindowKind.MONTH, now_ms())
    forged = Totals(0, 5, month.end_ms, 777, 0, 0, 0, 0, 0, 1, 0, month.start_ms)
    key = encode_key(SnapshotKey(SCOPE, "month", month.start_ms, "forged"))
    send(pipeline, Topic.SPEND_SNAPSHOTS, key, encode_totals(forged))
    # The copy: another amount under the same version.
    execute(
        pipeline,
        "INSERT INTO spend_windows SELECT * REPLACE (cost_usd + 1 AS cost_usd) FROM spend_windows "
        "FINAL WHERE scope = 'organisation:replayed' AND window_kind = 'day' "
        "ORDER BY window_start LIMIT 1",
    )
    drifted = reconciled(pipeline, "--alert")
    assert reconciled(pipeline, "--alert")["drift_windows"] == 2
    found = {(one["where"], one["scope"], one["window"]) for one in drifted["differences"]}
    assert found == {
        ("streams", SCOPE, "month"),
        ("windows", "organisation:replayed", "day"),
    }
    assert drifted["drift_nano_usd"] == 777 + 10**9
    assert reconciled(pipeline, "--repair")["repaired"] == 2
    eventually(lambda: reconciled(pipeline, "--alert")["exact"], "the repair")
    statuses = "SELECT status FROM alerts FINAL WHERE rule_id = 'pipeline.drift' ORDER BY ends_at"
    eventually(lambda: execute(pipeline, statuses) == [("firing",), ("resolved",)], "the alerts")
    audits = "SELECT object_id FROM audit_log FINAL WHERE action = 'spend.repaired' ORDER BY ALL"
    eventually(
        lambda: execute(pipeline, audits) == [(SCOPE,), ("organisation:replayed",)], "the audit"
    )
    meter = Gauges()
    DriftWatch(wiring.pipeline(load_settings(pipeline.data_dir)), meter)(now_ms())
    assert meter.values[Metric.DRIFT_WINDOWS] == 0
    assert meter.values[Metric.MISSING_BATCHES] == 2
    pipeline.json("verify", "--truth", str(tmp_path / "truth.json"), "--wait", "60")


def test_a_trace_shows_what_became_of_an_event(pipeline: Pipeline) -> None:
    """Counted once with its price and windows, sent again, refused for another body, unknown."""
    lane = "relay-where/boot/0"
    first = event("where-1")
    batch = encode_batch(lane, 1, [encode(event("where-0")), encode(first)])
    other = encode_batch(lane, 2, [encode(event("where-1", tokens=9))])
    send(pipeline, Topic.USAGE_EVENTS, lane.encode(), batch, batch, other)

    def trace_of(name: str) -> dict[str, Any]:
        done = pipeline.cli("where", name, "--json", check=False)
        found: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (1 if found["status"] == "unknown" else 0)
        return found

    def complete() -> bool:
        found = trace_of("where-1")
        outcomes = [one["outcome"] for one in found["arrivals"]]
        all_in = all(line["included"] for line in found["windows"])
        return outcomes == ["counted", "duplicate", "refused"] and all_in

    eventually(complete, "the trace")
    found = trace_of("where-1")
    counted, again, refused = found["arrivals"]
    assert (counted["lane"], counted["seq"], counted["index"]) == (lane, 1, 1)
    assert (again["lane"], again["seq"]) == (lane, 1)
    assert (refused["reason"], refused["seq"]) == ("conflict", 2)
    assert counted["offset"] < again["offset"] < refused["offset"]
    assert (found["cost_usd"], found["priced"]) == ("0.008000000", True)
    # Organisation, department and key, in four windows each.
    assert len(found["windows"]) == 12
    assert found["seconds"] < 5
    assert trace_of("never-sent")["status"] == "unknown"
    assert "counted" in pipeline.cli("where", "where-1").stdout
