"""Finance and audit commands as operators run them: what they print, write, and exit with."""

from __future__ import annotations

import csv
import getpass
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner, Result

from meterline.app.cli import cli
from meterline.app.clock import now_ms
from meterline.app.settings import BrokerKind, Runtime
from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import embedded_kafka
from meterline.control.policy.file import plan
from meterline.control.store import publish
from meterline.operations.policy import compile_policy, parse_policy
from meterline.pricing.catalogue_reader import catalogue_files
from meterline.reports.booking.core.months import Month, month_at, month_before
from meterline.reports.repricing.catalogue_archive import archive_catalogue
from meterline.schemas.periods import DAY_MS
from meterline.schemas.topics import TOPICS
from meterline.sinks.migrate import migrate
from tests.close_store import CATALOGUE, POLICY, store_events, usage
from tests.servers import running_broker, running_clickhouse
from tests.sink_process import start_sink
from tests.webhook_receiver import Answer, Receiver, running_receiver

pytestmark = [pytest.mark.functional, pytest.mark.timeout(400)]
PATIENCE_SECONDS = 60.0
EVENTS = 60
DEARER = b"""{"catalogue_version": "dearer", "entries": [
 {"seller": "openai", "model": "gpt-4.1", "prices": [
  {"effective_from": "2020-01-01", "tiers": [{"input": "3.00", "output": "12.00"}]}]}]}"""


class FinanceHarness(NamedTuple):
    """A running installation, and the command line that a person has for it."""

    folder: Path
    client: Client
    receiver: Receiver
    month: Month

    def run(self, *arguments: str, code: int = 0) -> str:
        result = self.result(*arguments)
        assert result.exit_code == code, f"{arguments}: {result.output} {result.exception!r}"
        return result.output

    def json(self, *arguments: str, code: int = 0) -> object:
        return json.loads(self.run(*arguments, "--json", code=code))

    def refused(self, *arguments: str) -> str:
        """What the one line of an error says."""
        result = self.result(*arguments)
        assert isinstance(result.exception, Exception), result.output
        assert not isinstance(result.exception, SystemExit), result.output
        return str(result.exception)

    def result(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, [*arguments, "--data", str(self.folder / "run")])

    def until(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not reached():
            assert time.monotonic() < deadline, "what was awaited did not come"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def finance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FinanceHarness]:
    """Broker, store with a month of events that is over, a sink, and an ERP that answers."""
    folder = tmp_path_factory.mktemp("finance")
    month = month_before(month_before(month_at(now_ms(), "UTC"), "UTC"), "UTC")
    with (
        running_receiver() as receiver,
        running_broker() as bootstrap,
        running_clickhouse(folder / "data") as (host, port),
    ):
        text = f"""{POLICY}
finance:
  currency: CNY
  rates: [{{kind: contract, quote: CNY, rate: "7.10", as_of: 2020-01-01, source: contract}}]
  push: {{url: "{receiver.base_url}/book", allow_private_address: true}}
"""
        kafka = embedded_kafka(bootstrap)
        admin = Admin(kafka)
        admin.apply(TOPICS, usage_partitions=1, replication_factor=1)
        admin.close()
        changes = plan({}, compile_policy(parse_policy(text, "policy.yaml")))
        publish(kafka, changes, actor="test", reason="start", at_ms=now_ms())
        client = Client(ClickHouseConfig(host, port))
        migrate(client)
        events = [
            usage(number, time_ms=month.start_ms + number % 20 * DAY_MS) for number in range(EVENTS)
        ]
        store_events(client, events, 10)
        archive_catalogue(client, catalogue_files(), month.start_ms)
        (folder / "run").mkdir()
        Runtime(
            pid=1,
            bootstrap=bootstrap,
            kind=BrokerKind.EMBEDDED,
            usage_partitions=1,
            clickhouse_host=host,
            clickhouse_port=port,
            time_zone="UTC",
            log_epoch=0,
        ).write(folder / "run")
        sink = start_sink(bootstrap, port)
        try:
            yield FinanceHarness(folder, client, receiver, month)
        finally:
            sink.terminate()
            sink.wait()
            client.close()


def tree(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_month_from_draft_to_revision(
    finance: FinanceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Draft, close, again, push, re-rate, reopen, revision: each says what it did and what it
    billed, repeats nothing, and the ERP books every department of a revision once."""
    monkeypatch.setenv("METERLINE_TIME_ZONE", "UTC")
    month, closes = finance.month.name, finance.folder / "run" / "closes"
    assert month not in finance.run("periods")
    said = finance.run("close", month, "--dry-run")
    assert "ready to close" in said
    assert "CNY ($" in said
    assert (closes / month / "draft" / "acme" / "bill.xlsx").stat().st_size > 0

    first = finance.json("close", month)
    assert isinstance(first, dict)
    assert (first["outcome"], first["revision"], first["blockers"]) == ("closed", 1, [])
    files = tree(closes / month / "r1")
    assert "already closed" in finance.run("close", month)
    assert tree(closes / month / "r1") == files
    assert "only a closed month" in finance.refused("reopen", "2019-01", "--reason", "x")

    finance.receiver.script["/book"].extend([Answer(500)] * 3)
    monkeypatch.setattr("meterline.reports.erp.push.WAIT_SECONDS_FIRST", 0)
    assert "4 delivered, 0 delivered before" in finance.run("push", month)
    assert "0 delivered, 4 delivered before" in finance.run("push", month)
    keys = [each.headers["idempotency-key"] for each in finance.receiver.of("/book")]
    assert (len(keys), len(set(keys))) == (7, 4)

    prices = finance.folder / "dearer.json"
    prices.write_bytes(DEARER)
    tried = finance.run("report", "whatif", "--catalogue", str(prices), "--period", month)
    assert "saves -$" in tried
    assert "--reason" in finance.refused("rerate", "--catalogue", str(prices), "--period", month)
    done = finance.run(
        "rerate", "--catalogue", str(prices), "--period", month, "--reason", "contract"
    )
    assert "20 of 60 events adjusted, $" in done
    # The catalogue that was used is kept by its version, and so are the prices before it.
    assert "dearer+" in finance.run("rates", "versions")
    back = finance.run("rerate", "--catalogue", CATALOGUE.version, "--period", month, "--dry-run")
    assert "20 of 60 events would be adjusted, -$" in back
    named = "2026-11+dearer"
    assert "0 of 60 events would" in finance.run(
        "rerate", "--catalogue", named, "--period", month, "--dry-run"
    )
    assert CATALOGUE.version in finance.refused(
        "rerate", "--catalogue", "2001-01", "--period", month, "--dry-run"
    )

    assert "makes revision 2" in finance.run("reopen", month, "--reason", "contract")
    assert "REOPENED" in finance.run("periods")
    assert f"closed {month} revision 2" in finance.run("close", month)
    assert tree(closes / month / "r1") == files
    finance.run("push", month)
    keys = [each.headers["idempotency-key"] for each in finance.receiver.of("/book")]
    assert {key.split("-r")[1][0] for key in keys} == {"1", "2"}
    assert max(keys.count(key) for key in keys[7:]) == 1


def test_a_month_that_is_not_over_stays_open(finance: FinanceHarness) -> None:
    """The refusal says why and exits with 3; nothing is closed."""
    this = month_at(now_ms(), "UTC").name
    assert "the month stays open" in finance.run("close", this, code=3)
    refused = finance.json("close", this, code=3)
    assert isinstance(refused, dict)
    assert [each["kind"] for each in refused["blockers"]] == ["time"]
    assert "is not a month" in finance.refused("close", "October")


def test_a_providers_count_is_compared(finance: FinanceHarness) -> None:
    """Imported once, compared by day and model, flagged with exit code 1; what is no model is
    named."""
    day_s = finance.month.start_ms // 1000
    bucket = {"start_time": day_s, "end_time": day_s + 86_400}
    counts = {"input_tokens": 5, "output_tokens": 6, "input_cached_tokens": 0}
    usage_file, costs_file = finance.folder / "usage.json", finance.folder / "costs.json"
    usage_file.write_text(
        json.dumps(
            {
                "data": [
                    {
                        **bucket,
                        "results": [
                            {"model": "gpt-4.1-2025-04-14", "num_model_requests": 1, **counts}
                        ],
                    }
                ]
            }
        ),
        encoding="utf-8",
    )
    costs_file.write_text(
        json.dumps(
            {
                "data": [
                    {
                        **bucket,
                        "results": [
                            {"line_item": "web search", "amount": {"value": 0.5, "currency": "usd"}}
                        ],
                    }
                ]
            }
        ),
        encoding="utf-8",
    )
    arguments = ("provider", "import", str(usage_file), str(costs_file))
    assert "imported: 2 rows of openai" in finance.run(*arguments)
    assert "nothing changed" in finance.run(*arguments)
    said = finance.run("provider", "compare", "openai", "--period", finance.month.name, code=1)
    assert "gpt-4.1" in said
    assert "web search $0.50" in said
    assert "no export of anthropic" in finance.refused("provider", "compare", "anthropic")


def test_auditors_get_every_request_and_action(finance: FinanceHarness) -> None:
    """Export by request and by key, the log as JSON lines and as OCSF, a chain that holds, roots
    that hold, erasure and retention on record."""
    out = finance.folder / "october.csv"
    finance.run("audit", "export", "--period", finance.month.name, "--out", str(out))
    rows = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8"), newline="")))
    assert len(rows) == EVENTS
    assert not out.with_name("october.csv.part").exists()
    per_key = finance.run(
        "audit",
        "export",
        "--period",
        finance.month.name,
        "--aggregate",
        "per_key",
        "--format",
        "jsonl",
    )
    assert sum(json.loads(line)["requests"] for line in per_key.splitlines()) == EVENTS

    assert "nothing is stored" in finance.run(
        "audit", "erase", "nobody", "--organisation", "acme", "--reason", "request 1"
    )
    assert "must not name" in finance.refused(
        "audit", "erase", "ana", "--organisation", "acme", "--reason", "ana asks"
    )
    assert "name both" in finance.refused("audit", "retention", "--class", "personal")
    changed = finance.run("audit", "retention", "--class", "personal", "--days", "180")
    assert "personal  180 days" in changed
    assert "events    indefinitely" in changed

    def log(form: str) -> list[dict[str, object]]:
        lines = finance.run("audit", "log", "--format", form).splitlines()
        return [json.loads(line) for line in lines]

    def arrived() -> bool:
        return {"personal.erased", "retention.changed"} <= {str(e["action"]) for e in log("jsonl")}

    finance.until(arrived)
    actions, events = log("jsonl"), log("ocsf")
    assert [each["id"] for each in actions] == [each["metadata"]["uid"] for each in events]  # type: ignore[index]
    (retention,) = [each for each in actions if each["action"] == "retention.changed"]
    assert (retention["actor"], retention["before"]) == (getpass.getuser(), '{"days": 400}')

    assert "unbroken" in finance.run("audit", "verify")
    kept = finance.folder / "roots.jsonl"
    kept.write_text(finance.run("audit", "roots"), encoding="utf-8")
    assert "days match their kept roots" in finance.run("audit", "verify", "--roots", str(kept))
    finance.client.command(
        "ALTER TABLE audit_log UPDATE reason = 'another' WHERE action = 'personal.erased' "
        "SETTINGS mutations_sync = 1"
    )
    assert "broken (changed)" in finance.run("audit", "verify", code=1)
