"""The closed month goes into the ERP: pushed and booked once, pulled unchanged."""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.backends.webhook.client import WebhookClient
from meterline.reports.booking.core.inputs import mapping_of
from meterline.reports.booking.period_store import read_ledger
from meterline.reports.close.close import CloseOutcome, close_month
from meterline.reports.erp.pull import ExportServer
from meterline.reports.erp.push import ATTEMPTS_MAX, PushDependencies, PushReport, push_closed
from meterline.sinks.migrate import migrate
from tests.close_store import CUT_OFF_MS, POLICY, CloseHarness, october_events, store_events
from tests.servers import running_clickhouse
from tests.webhook_receiver import Answer, Receiver, running_receiver

pytestmark = pytest.mark.functional
TOKEN = "erp-token-of-the-test"


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloseHarness]:
    """October, closed with a receiver in its policy."""
    folder = tmp_path_factory.mktemp("push")
    with running_clickhouse(folder / "data") as (host, port):
        client = Client(ClickHouseConfig(host, port))
        migrate(client)
        store_events(client, october_events(40), 10)
        harness = CloseHarness(client, folder / "closes", policy=policy("https://erp.example/x"))
        result = close_month(harness.dependencies(), "2026-10", CUT_OFF_MS, actor="ana")
        assert result.outcome is CloseOutcome.CLOSED, result.blockers
        yield harness
        client.close()


@pytest.fixture
def harness(closed: CloseHarness) -> CloseHarness:
    closed.client.command("TRUNCATE TABLE erp_deliveries")
    return closed


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as running:
        yield running


def policy(url: str) -> str:
    return f"""{POLICY}
finance:
  push: {{url: "{url}", token_env: METERLINE_SECRET_ERP, allow_private_address: true}}
"""


def push(harness: CloseHarness, url: str, waits: list[float] | None = None) -> PushReport:
    target = mapping_of(replace(harness, policy=policy(url)).policies()).finance.push
    http_client = WebhookClient(timeout_seconds=30)
    try:
        dependencies = PushDependencies(
            harness.client,
            http_client.post,
            {"METERLINE_SECRET_ERP": TOKEN}.get,
            lambda: CUT_OFF_MS,
            (waits if waits is not None else []).append,
        )
        return push_closed(dependencies, read_ledger(harness.client), target)
    finally:
        http_client.close()


def test_a_receiver_that_fails_three_times_books_once(
    harness: CloseHarness, receiver: Receiver
) -> None:
    """500 three times, then success: every department is booked once, with the bill's amount."""
    url = receiver.url("/book", Answer(500), Answer(500), Answer(500))
    waits: list[float] = []
    report = push(harness, url, waits)
    assert (report.delivered, report.refused, report.waiting) == (4, 0, 0)
    assert waits == [1, 2, 4]
    requests = receiver.of("/book")
    assert {each.headers["authorization"] for each in requests} == {f"Bearer {TOKEN}"}
    keys = [each.headers["idempotency-key"] for each in requests]
    assert Counter(keys).most_common(2) == [("acme-2026-10-r1:platform", 4), (keys[4], 1)]
    booked = {key: json.loads(each.body) for key, each in zip(keys, requests, strict=True)}
    expected = [
        each
        for organisation in ("acme", "globex")
        for each in json.loads(
            (harness.root / "2026-10" / "r1" / organisation / "push.json").read_bytes()
        )
    ]
    assert [{"idempotency_key": key, **body} for key, body in booked.items()] == expected
    assert set(booked["acme-2026-10-r1:platform"]) == {
        "departmentId", "costCenter", "amount", "currency", "period",
    }  # fmt: skip
    # The next round finds everything delivered.
    assert push(harness, url).before == 4
    assert len(receiver.of("/book")) == len(requests)


def test_a_receiver_that_is_away_is_asked_again_later(
    harness: CloseHarness, receiver: Receiver
) -> None:
    """A round ends after its attempts and records nothing; the next one delivers all."""
    url = receiver.url("/away", *[Answer(503, {"retry-after": "20"})] * ATTEMPTS_MAX)
    waits: list[float] = []
    assert push(harness, url, waits) == PushReport(waiting=1)
    assert waits == [20, 20, 20, 20]
    assert push(harness, url) == PushReport(delivered=4)


def test_a_refusal_is_kept_for_a_person(harness: CloseHarness, receiver: Receiver) -> None:
    """400 is not repeated by itself, and does not hold up the others."""
    url = receiver.url("/strict", Answer(400))
    assert push(harness, url) == PushReport(delivered=3, refused=1)
    assert push(harness, url) == PushReport(before=4)
    rows = harness.client.query(
        "SELECT idempotency_key, http_status FROM erp_deliveries FINAL WHERE outcome = 'refused'"
    )
    assert rows == [("acme-2026-10-r1:platform", 400)]


def test_pull_serves_what_the_manifest_names(harness: CloseHarness) -> None:
    """ETag and digest are those of the bytes, an unchanged file is not sent, nothing else is."""
    server = ExportServer(harness.root, TOKEN, "127.0.0.1", 0)
    server.start()
    try:
        base = f"http://127.0.0.1:{server.port}/v1/exports"
        with httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False) as client:
            assert client.get(base).json() == {"periods": [{"period": "2026-10", "revision": 1}]}
            manifest = client.get(f"{base}/2026-10").json()
            for each in manifest["files"]:
                answer = client.get(f"{base}/2026-10/{each['path']}")
                digest = hashlib.sha256(answer.content)
                assert digest.hexdigest() == each["sha256"]
                assert answer.headers["etag"] == f'"{each["sha256"]}"'
                encoded = base64.b64encode(digest.digest()).decode()
                assert answer.headers["content-digest"] == f"sha-256=:{encoded}:"
            last = manifest["files"][-1]
            tagged = {"If-None-Match": f'"{last["sha256"]}"'}
            again = client.get(f"{base}/2026-10/r1/{last['path']}", headers=tagged)
            assert (again.status_code, again.content) == (304, b"")
            for path in ("2026-10/../../data", "2026-10/r1/..%2f..%2fclosed", "2026-11", "x/r1"):
                assert client.get(f"{base}/{path}").status_code == 404
            (harness.root / "2026-10" / "r1" / "secret.txt").write_text("x", encoding="utf-8")
            assert client.get(f"{base}/2026-10/secret.txt").status_code == 404
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
            assert httpx.get(base, headers=header, trust_env=False).status_code == 401
    finally:
        server.stop()


def test_exports_need_a_token(tmp_path: Path) -> None:
    """Without a token nothing is served at all."""
    with pytest.raises(ValueError, match="token"):
        ExportServer(tmp_path, "", "127.0.0.1", 0)
