"""Attribution over three months of events, beside the table shapes of peers.

    python -m benchmarks.attribution [--json] [--events 100000000] [--ids uuid7]

The default of two million events runs in minutes; the figures of docs/benchmarks.md say how many
they were taken with. Peers' shapes hold the same events, five million at most: a JSON text with
Float64 money and no deduplication, a ReplacingMergeTree read with FINAL, and a plain table that is
deduplicated in two passes when read.

Of every question three figures are printed: `best`, the least of what the server says its statements
took, which is what the targets are about, because a shared machine makes any run longer and none
shorter; `cpu`, the server's processor time; and `wall`, what the asking process waited.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from typing_extensions import override

from benchmarks.attribution_data import (
    DAYS,
    ROWS_PER_INSERT,
    START_MS,
    Ids,
    insert_events,
    insert_windows,
    mark_changes,
)
from benchmarks.report import Figure, Target, finish
from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.embedded.clickhouse import start_clickhouse
from meterline.reports.attribution.core.period import read_period
from meterline.reports.attribution.core.question import (
    Attribution,
    AttributionSource,
    read_axis,
    read_filter,
)
from meterline.reports.attribution.reader import read_attribution
from meterline.reports.audit.core.export import AuditExport, ExportFormat
from meterline.reports.audit.export import export_text
from meterline.schemas.money import nano_from_usd
from meterline.schemas.periods import DAY_MS, Calendar
from meterline.sinks.migrate import migrate
from meterline.sinks.rollup import refresh

ROUNDS = 7
PEER_EVENTS_MAX = 5_000_000
FULL_EVENTS = 100_000_000
EVENTS = 2_000_000
STATEMENT_SECONDS_MAX = 3_600
NOW_MS = START_MS + (DAYS + 1) * DAY_MS
UTC = Calendar()
AUGUST = read_period("2026-08", UTC, NOW_MS)
BY_DEPARTMENT_AND_MODEL = Attribution(AUGUST, UTC, (read_axis("department"), read_axis("model")))
ONE_KEY = Attribution(
    AUGUST, UTC, filters=(read_filter("organisation=org-2"), read_filter("key=key-00002"))
)


class Peer(NamedTuple):
    """A table shape, filled from ours, and the month by department and model in it."""

    name: str
    create: str
    fill: str
    question: str


_MONTH = "t >= '2026-08-01 00:00:00' AND t < '2026-09-01 00:00:00'"
PEERS = (
    Peer(
        "json_float64",
        "CREATE TABLE p_json (namespace LowCardinality(String), id String, subject String, "
        "t DateTime64(3, 'UTC'), data String) ENGINE = MergeTree PARTITION BY toYYYYMM(t) "
        "ORDER BY (namespace, t, subject)",
        "INSERT INTO p_json SELECT organisation, event_id, key, event_time, concat("
        '\'{"department":"\', department, \'","model":"\', model, \'","input":\', '
        "toString(input_tokens), ',\"cost\":\"', toString(cost_usd), '\"}') FROM usage_events",
        "SELECT JSONExtractString(data, 'department') AS d, JSONExtractString(data, 'model') AS m, "  # noqa: S608 - fixed text
        f"sum(toFloat64(JSONExtractString(data, 'cost'))) FROM p_json WHERE {_MONTH} GROUP BY d, m",
    ),
    Peer(
        "replacing_final",
        "CREATE TABLE p_replacing (tenant String, customer String, name LowCardinality(String), "
        "id String, t DateTime64(3, 'UTC'), properties String, quantity Decimal(25, 15), "
        "version UInt64) ENGINE = ReplacingMergeTree(version) PARTITION BY toYYYYMM(t) "
        "ORDER BY (tenant, customer, name, t, id)",
        "INSERT INTO p_replacing SELECT organisation, key, model, event_id, event_time, concat("
        "'{\"department\":\"', department, '\"}'), cost_usd, version FROM usage_events",
        "SELECT JSONExtractString(properties, 'department') AS d, name, sum(quantity) "  # noqa: S608 - fixed text
        f"FROM p_replacing FINAL WHERE {_MONTH} GROUP BY d, name",
    ),
    Peer(
        "two_pass",
        "CREATE TABLE p_two_pass (organisation String, subscription String, code "
        "LowCardinality(String), id String, t DateTime64(3, 'UTC'), enriched_at DateTime64(3), "
        "properties Map(String, String), value Decimal(38, 26)) ENGINE = MergeTree "
        "PARTITION BY toYYYYMM(t) ORDER BY (organisation, code, subscription, t, id)",
        "INSERT INTO p_two_pass SELECT organisation, key, model, event_id, event_time, event_time, "
        "map('department', department), cost_usd FROM usage_events",
        "SELECT department, code, sum(value_) FROM (SELECT code, subscription, id, t, "  # noqa: S608 - fixed text
        "argMax(value, enriched_at) AS value_, argMax(properties, enriched_at)['department'] AS "
        f"department FROM p_two_pass WHERE {_MONTH} GROUP BY code, subscription, id, t) "
        "GROUP BY department, code",
    ),
)


class TimedClient(Client):
    """Adds up how long the server says that its statements took."""

    server_ms = 0.0

    @override
    def query(
        self, sql: str, parameters: Mapping[str, object] | None = None
    ) -> list[tuple[Any, ...]]:
        """As of `Client`, once."""
        answer = self._connected().query(sql, parameters=dict(parameters or {}))
        self.server_ms += int(answer.summary["elapsed_ns"]) / 1e6
        return list(answer.result_rows)


class Bench(NamedTuple):
    """The store under test."""

    client: TimedClient
    server: psutil.Process

    def figures(self, name: str, work: Callable[[], object], rounds: int = ROUNDS) -> list[Figure]:
        """How long it takes, after one run that warms up."""
        work()
        wall, server_times = [], []
        cpu_before = sum(self.server.cpu_times()[:2])
        for _ in range(rounds):
            self.client.server_ms = 0.0
            began = time.perf_counter()
            work()
            wall.append((time.perf_counter() - began) * 1000)
            server_times.append(self.client.server_ms)
        cpu_ms = (sum(self.server.cpu_times()[:2]) - cpu_before) * 1000 / rounds
        return [
            Figure(f"{name}_best_ms", [min(server_times)], "ms"),
            Figure(f"{name}_cpu_ms", [cpu_ms], "ms"),
            Figure(f"{name}_wall_ms", wall, "ms"),
        ]


def fill(client: Client, events: int, ids: Ids) -> None:
    """Events, re-sends, marks and roll-ups, and the merges that a server does by itself."""
    for first in range(0, events, ROWS_PER_INSERT):
        rows = min(ROWS_PER_INSERT, events - first)
        insert_events(client, first, rows, events, ids=ids)
        insert_events(client, first, rows, events, ids=ids, resent=True)
    mark_changes(client)
    insert_windows(client)
    at_ms = NOW_MS
    while refresh(client, UTC.time_zone, at_ms):
        at_ms += 1


def plainly(client: Client) -> dict[tuple[str, str], int]:
    """The month by department and model from distinct ids: shares nothing with FINAL."""
    rows = client.query(f"""
SELECT department_, model_, sum(cost) FROM (
    SELECT event_id, any(department) AS department_, any(model) AS model_, any(cost_usd) AS cost
    FROM (SELECT event_id, department, model, cost_usd, event_time AS t FROM usage_events)
    WHERE {_MONTH} GROUP BY event_id
) GROUP BY department_, model_""")  # noqa: S608 - fixed text
    return {(row[0], row[1]): nano_from_usd(str(row[2])) for row in rows}


def answered(client: Client, question: Attribution) -> dict[tuple[str, ...], int]:
    """The same from attribution."""
    return {line.group: line.cost_nano_usd for line in read_attribution(client, question).lines}


def bytes_per_event(client: Client) -> tuple[float, float]:
    """On disk after merging, with and without the ids."""
    client.command("OPTIMIZE TABLE usage_events FINAL")
    [(size, rows)] = client.query(
        "SELECT sum(data_compressed_bytes), sum(rows) FROM system.parts "
        "WHERE table = 'usage_events' AND active AND database = currentDatabase()"
    )
    [(ids,)] = client.query(
        "SELECT sum(column_data_compressed_bytes) FROM system.parts_columns WHERE active "
        "AND table = 'usage_events' AND column = 'event_id' AND database = currentDatabase()"
    )
    return size / rows, (size - ids) / rows


def dense_bytes_per_event(client: Client, ids: Ids) -> tuple[float, float]:
    """The same of the first million of FULL_EVENTS: as many events of a key and day as those have.

    Events of one key and day share what is stored once, so a thin sample looks larger than it would.
    """
    client.command("CREATE DATABASE dense")
    dense = Client(replace(client.config, database="dense"))
    try:
        migrate(dense)
        insert_events(dense, 0, ROWS_PER_INSERT, FULL_EVENTS, ids=ids)
        return bytes_per_event(dense)
    finally:
        dense.close()


def export_figures(client: Client) -> list[Figure]:
    """Rows of one month to CSV in a second, and how much memory that took here."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    size = sum(len(piece) for piece in export_text(client, AuditExport(AUGUST), ExportFormat.CSV))
    seconds = time.perf_counter() - began
    [(rows,)] = client.query(
        "SELECT count() FROM usage_events FINAL WHERE toYYYYMM(event_time) = 202608"
    )
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return [
        Figure("export_rows_per_second", [rows / seconds], "rows/s"),
        Figure("export_megabytes", [size / 1e6], "MB"),
        Figure("export_memory_growth", [grown], "MB"),
    ]


def peer_figures(bench: Bench, truth: int) -> list[Figure]:
    """Time and error of the month by department and model in the peers' shapes."""
    figures = []
    for peer in PEERS:
        total = sum(float(row[2]) for row in bench.client.query(peer.question))
        question = partial(bench.client.query, peer.question)
        figures += bench.figures(f"peer_{peer.name}", question, 3)
        figures.append(Figure(f"peer_{peer.name}_error", [total / (truth / 1e9) * 100 - 100], "%"))
    return figures


def run(bench: Bench, events: int, ids: Ids) -> list[Figure]:
    """Everything that is measured."""
    client = bench.client
    fill(client, events, ids)
    if events <= PEER_EVENTS_MAX:
        # Before our own merges remove the re-sends: the peers' tables have them too.
        for peer in PEERS:
            client.command(peer.create)
            client.command(peer.fill)
    raw = Attribution(
        AUGUST, UTC, BY_DEPARTMENT_AND_MODEL.by, source=AttributionSource.USAGE_EVENTS
    )
    unmerged = bench.figures("raw_final_unmerged", lambda: read_attribution(client, raw), 2)
    size, size_without_id = bytes_per_event(client)
    dense, dense_without_id = dense_bytes_per_event(client, ids)
    truth = plainly(client)
    assert read_attribution(client, BY_DEPARTMENT_AND_MODEL).source is AttributionSource.USAGE_DAYS
    assert read_attribution(client, ONE_KEY).source is AttributionSource.SPEND_WINDOWS
    exact = truth == answered(client, BY_DEPARTMENT_AND_MODEL) == answered(client, raw)
    figures = [
        Figure("events", [events], ""),
        *bench.figures("rollup", lambda: read_attribution(client, BY_DEPARTMENT_AND_MODEL)),
        *bench.figures("raw_final", lambda: read_attribution(client, raw)),
        *unmerged,
        *bench.figures("one_key", lambda: read_attribution(client, ONE_KEY)),
        Figure("exact", [int(exact)], ""),
        Figure("bytes_per_event", [size], "bytes"),
        Figure("bytes_per_event_without_id", [size_without_id], "bytes"),
        Figure("dense_bytes_per_event", [dense], "bytes"),
        Figure("dense_bytes_per_event_without_id", [dense_without_id], "bytes"),
        *export_figures(client),
    ]
    if events <= PEER_EVENTS_MAX:
        figures += peer_figures(bench, sum(truth.values()))
    return figures


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--ids", choices=("sequence", "uuid7"), default="sequence")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        server = start_clickhouse(Path(directory))
        client = TimedClient(
            ClickHouseConfig(port=server.port, statement_seconds_max=STATEMENT_SECONDS_MAX)
        )
        try:
            migrate(client)
            bench = Bench(client, psutil.Process(server.pid))
            figures = run(bench, arguments.events, arguments.ids)
        finally:
            client.close()
            server.stop()
    finish(
        "attribution",
        figures,
        [
            Target("rollup_best_ms", "<", 150),
            Target("raw_final_best_ms", "<", 3_000),
            Target("one_key_best_ms", "<", 30),
            Target("exact", "==", 1),
            Target("dense_bytes_per_event", "<=", 21),
            Target("export_rows_per_second", ">=", 200_000),
        ],
        json_flag=arguments.json,
    )


if __name__ == "__main__":
    main()
