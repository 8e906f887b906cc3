"""The reports worker as a process: killed in a close and in a push, it resumes and books once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from meterline.app.clock import now_ms
from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import embedded_kafka
from meterline.control.policy.file import plan
from meterline.control.store import publish
from meterline.operations.policy import compile_policy, parse_policy
from meterline.reports.booking.core.ledger import PeriodState
from meterline.reports.booking.core.months import Month, month_at, month_before
from meterline.reports.booking.period_store import read_ledger
from meterline.reports.close.files import check_files
from meterline.schemas.topics import TOPICS
from meterline.sinks.migrate import migrate
from tests.close_store import POLICY, store_events, usage
from tests.pipeline import clean_environment
from tests.servers import running_broker, running_clickhouse
from tests.webhook_receiver import Answer, Receiver, running_receiver

pytestmark = [pytest.mark.functional, pytest.mark.timeout(400)]
PATIENCE_SECONDS = 90.0
SECRETS = {"METERLINE_SECRET_ERP": "erp-token-of-the-test"}


class Site:
    """Broker, store and receiver of one installation, and its reports worker."""

    def __init__(self, client: Client, environment: Mapping[str, str], folder: Path) -> None:
        self.client = client
        self.root = folder / "closes"
        self._environment = clean_environment(
            {**environment, **SECRETS, "METERLINE_REPORTS__DIRECTORY": str(self.root)}
        )
        self._log = folder / "reports.log"

    @contextmanager
    def worker(self, crash_at: str = "") -> Iterator[subprocess.Popen[bytes]]:
        """Runs `meterline reports`; killed at the end if it still lives."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "meterline.app.cli", "reports"],
                env={**self._environment, "METERLINE_CRASH_AT": crash_at},
                stdout=log,
                stderr=log,
            )
            try:
                yield process
            finally:
                process.kill()
                process.wait()

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait for it; the worker's log is in the failure."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not reached():
            assert time.monotonic() < deadline, self._log.read_text(errors="replace")[-4000:]
            time.sleep(0.05)

    def state(self, month: Month) -> PeriodState:
        return read_ledger(self.client).history(month.name).state

    def delivered(self) -> int:
        ((count,),) = self.client.query(
            "SELECT count() FROM erp_deliveries FINAL WHERE outcome = 'delivered'"
        )
        return int(count)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as running:
        yield running


@pytest.fixture
def month() -> Month:
    """The month before the last: over its cut-off whatever today is."""
    return month_before(month_before(month_at(now_ms(), "UTC"), "UTC"), "UTC")


@pytest.fixture
def site(tmp_path: Path, receiver: Receiver, month: Month) -> Iterator[Site]:
    """A month of events that is due, with a receiver in its policy, and no worker yet."""
    policy = f"""{POLICY}
finance:
  push:
    url: "{receiver.base_url}/book"
    token_env: METERLINE_SECRET_ERP
    allow_private_address: true
"""
    with running_broker() as bootstrap, running_clickhouse(tmp_path / "data") as (host, port):
        kafka = embedded_kafka(bootstrap)
        admin = Admin(kafka)
        admin.apply(TOPICS, usage_partitions=1, replication_factor=1)
        admin.close()
        changes = plan({}, compile_policy(parse_policy(policy, "policy.yaml")))
        publish(kafka, changes, actor="test", reason="start", at_ms=1)
        client = Client(ClickHouseConfig(host, port))
        migrate(client)
        events = [usage(number, time_ms=month.start_ms + number * 1_000) for number in range(80)]
        store_events(client, events, 10)
        environment = {
            "METERLINE_KAFKA__BOOTSTRAP": bootstrap,
            "METERLINE_KAFKA__KIND": "embedded",
            "METERLINE_KAFKA__USAGE_PARTITIONS": "1",
            "METERLINE_CLICKHOUSE__HOST": host,
            "METERLINE_CLICKHOUSE__PORT": str(port),
            "METERLINE_DATA_DIR": str(tmp_path / "run"),
        }
        yield Site(client, environment, tmp_path)
        client.close()


def test_a_killed_worker_resumes_and_books_once(
    site: Site, receiver: Receiver, month: Month
) -> None:
    """Killed before the inputs are frozen, before the month is closed, and while the receiver has
    a delivery in hand: each start goes on; lines, files and bookings are there once."""
    receiver.script["/book"].append(Answer(hang=True))
    for crash_at, left_as in (
        ("close.frozen", PeriodState.CLOSING),
        ("close.closed", PeriodState.FROZEN),
    ):
        with site.worker(crash_at) as process:
            assert process.wait(PATIENCE_SECONDS) == -9
        assert site.state(month) is left_as
    with site.worker() as process:
        site.until(lambda: bool(receiver.of("/book")))
        assert site.state(month) is PeriodState.CLOSED
        assert site.delivered() == 0
        process.kill()
        process.wait()
    with site.worker():
        site.until(lambda: site.delivered() == 4)

    history = read_ledger(site.client).history(month.name)
    assert [entry.revision for entry in history.closed] == [1]
    folder = site.root / month.name / "r1"
    assert check_files(folder) == []
    # What counts are the lines of closed runs: those of killed attempts count for nothing.
    ((booked, raw),) = site.client.query(
        "SELECT (SELECT sum(cost_usd) FROM closed_lines WHERE run = {run:UInt64}), "
        "(SELECT sum(cost_usd) FROM usage_events FINAL)",
        {"run": history.closed[0].run},
    )
    assert booked == raw > 0
    # The receiver saw one delivery twice, under one key: that is what the key is for.
    sent = Counter(each.headers["idempotency-key"] for each in receiver.of("/book"))
    assert sorted(sent.values()) == [1, 1, 1, 2]
    bodies = {each.headers["idempotency-key"]: each.body for each in receiver.of("/book")}
    pushed = [
        each
        for name in ("acme", "globex")
        for each in json.loads((folder / name / "push.json").read_bytes())
    ]
    assert {each.pop("idempotency_key"): each for each in pushed} == {
        key: json.loads(body) for key, body in bodies.items()
    }
