"""Closing a month of 30 million events: time, and memory of the closing process.

The events are made inside ClickHouse: 500 departments with 4 keys each, skewed, 4 models, 31 days,
every third event with cached tokens, every 50th in a higher context tier. The month windows are
added up from them, as agreeing streams would publish them. The close runs in a process of its own,
so that the memory is that of `meterline close` and nothing else.

    python -m benchmarks.close [--events 30000000] [--json]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil

from benchmarks.report import Figure, Target, finish
from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.embedded.clickhouse import start_clickhouse
from meterline.embedded.processes import ServerProcess
from meterline.operations.policy import compile_policy, parse_policy
from meterline.pricing.catalogue_reader import load_catalogue
from meterline.reports.close.close import CloseDependencies, CloseOutcome, close_month
from meterline.sinks.migrate import migrate

EVENTS = 30_000_000
EVENTS_PER_INSERT = 5_000_000
DEPARTMENTS = 500
OCTOBER_MS = 1_790_812_800_000
CUT_OFF_MS = OCTOBER_MS + 33 * 86_400_000 + 6 * 3_600_000
SECONDS_MAX, MEGABYTES_MAX = 120, 1_024
STATEMENT_SECONDS_MAX = 1_800
_GENERATE = """
INSERT INTO usage_events (event_id, event_time, organisation, department, project, environment, key,
    key_name, model, provider, input_tokens, output_tokens, cache_read_tokens, cost_usd, priced,
    price_version, source_partition, version)
SETTINGS optimize_on_insert = 0  -- no row is there twice; looking for it takes 5 times the rest
WITH
    toUInt64(number) AS n,
    cityHash64(n) AS h,
    toUInt32(pow(toFloat64(h % 1000003) / 1000003, 3) * {departments:UInt32}) AS d,
    bitShiftRight(h, 20) % 4 AS k,
    bitShiftRight(h, 24) % 4 AS m,
    toInt64(200 + bitShiftRight(h, 30) % 6000 + if(n % 50 = 0, 210000, 0)) AS given,
    toInt64(if(n % 3 = 0, intDiv(given, 2), 0)) AS cached,
    toInt64(20 + bitShiftRight(h, 40) % 800) AS out,
    given > 200000 AS large
SELECT concat('req-', hex(h), '-', toString(n)),
    fromUnixTimestamp64Milli(toInt64({start_ms:Int64} + bitShiftRight(h, 8) % 2678400000), 'UTC'),
    'acme', concat('department-', toString(d)), concat('project-', toString(d), '-', toString(k % 2)),
    'production', concat('key-', toString(d), '-', toString(k)), '',
    ['gpt-4.1', 'claude-sonnet-4.5', 'gemini-2.5-flash', 'gpt-4.1-mini'][m + 1],
    ['openai', 'anthropic', 'google', 'openai'][m + 1],
    given, out, cached,
    CAST(((given - cached) * [2000, 3000, 300, 400][m + 1] + cached * [500, 300, 30, 100][m + 1]
        + out * [8000, 15000, 2500, 1600][m + 1]) * toDecimal128('0.000000001', 9) AS Decimal(18, 9)),
    true, 'benchmark', n % 4, 2 * (9223372036854775807 - n * 512)
FROM numbers({first:UInt64}, {count:UInt64})
"""
_WINDOWS = """
INSERT INTO spend_windows (window_kind, window_start, window_end, scope_type, organisation, scope,
    shard, cost_usd, input_tokens, output_tokens, events, unpriced_events, version)
SELECT 'month', toStartOfMonth(event_time), addMonths(toStartOfMonth(event_time), 1),
    splitByChar(':', scope)[1], organisation,
    arrayJoin([concat('organisation:', organisation),
               concat('department:', organisation, '/', department),
               concat('key:', organisation, '/', key),
               concat('project:', organisation, '/', project)]) AS scope,
    '0', sum(cost_usd), sum(input_tokens), sum(output_tokens), count(), countIf(NOT priced), 1
FROM usage_events GROUP BY ALL"""


def policy_text() -> str:
    """Every department with a cost centre and a budget."""
    departments = "\n".join(
        f"      - {{id: department-{number}, cost_center: CC-{number}, budget: {{month_usd: 900}}}}"
        for number in range(DEPARTMENTS)
    )
    return f"version: 1\norganisations:\n  - id: acme\n    departments:\n{departments}\n"


def close_here(port: int, root: Path) -> None:
    """The measured process: closes October and prints what it took."""
    client = Client(
        ClickHouseConfig("127.0.0.1", port, statement_seconds_max=STATEMENT_SECONDS_MAX)
    )
    catalogue = load_catalogue()
    steps: dict[str, float] = {}

    def step(name: str) -> None:
        steps[name] = time.monotonic()

    dependencies = CloseDependencies(
        client=client,
        root=root,
        time_zone="UTC",
        policies=lambda: compile_policy(parse_policy(policy_text(), "policy.yaml")),
        lag=lambda: (),
        audit=lambda _entry: None,
        contracted=catalogue,
        listed=catalogue,
        on_step=step,
    )
    begun = time.monotonic()
    result = close_month(dependencies, "2026-10", CUT_OFF_MS, actor="benchmark")
    seconds = time.monotonic() - begun
    assert result.outcome is CloseOutcome.CLOSED, result.blockers
    ((lines,),) = client.query("SELECT count() FROM closed_lines")
    manifest = json.loads((root / "2026-10" / "r1" / "manifest.json").read_bytes())
    focus = next(each for each in manifest["files"] if "cost-and-usage" in each["path"])
    print(
        json.dumps(
            {
                "seconds": seconds,
                "lines_seconds": steps["checks"] - steps["lines"],
                "files_seconds": steps["closed"] - steps["files"],
                "cpu_seconds": time.process_time(),
                "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "lines": lines,
                "focus_rows": focus["rows"],
                "billed_usd": focus["sums"]["BilledCost"],
            }
        )
    )


def main() -> None:
    """Make the month, close it in another process, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--close", nargs=2, metavar=("PORT", "ROOT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.close:
        close_here(int(arguments.close[0]), Path(arguments.close[1]))
        return
    with tempfile.TemporaryDirectory(prefix="meterline-close-") as folder:
        server = start_clickhouse(Path(folder) / "data")
        try:
            measured, total = _measure(server, arguments.events, Path(folder) / "closes")
        finally:
            server.stop()
    unequal = Decimal(total) != Decimal(str(measured["billed_usd"]))
    figures = [
        Figure("close_seconds", [measured["seconds"]], "s"),
        Figure("lines_seconds", [measured["lines_seconds"]], "s"),
        Figure("files_seconds", [measured["files_seconds"]], "s"),
        Figure("close_process_cpu_seconds", [measured["cpu_seconds"]], "s"),
        Figure("clickhouse_cpu_seconds", [measured["clickhouse_cpu_seconds"]], "s"),
        Figure("peak_megabytes", [measured["megabytes"]], "MB"),
        Figure("events", [arguments.events], "events"),
        Figure("booked_lines", [measured["lines"]], "lines"),
        Figure("focus_rows", [measured["focus_rows"]], "rows"),
        Figure("unequal_totals", [int(unequal)], "totals"),
    ]
    targets = [
        Target("close_seconds", "<", SECONDS_MAX),
        Target("peak_megabytes", "<", MEGABYTES_MAX),
        Target("unequal_totals", "==", 0),
    ]
    finish("close", figures, targets, json_flag=arguments.json)


def _measure(server: ServerProcess, events: int, root: Path) -> tuple[dict[str, Any], str]:
    port = server.port
    client = Client(
        ClickHouseConfig("127.0.0.1", port, statement_seconds_max=STATEMENT_SECONDS_MAX)
    )
    migrate(client)
    for first in range(0, events, EVENTS_PER_INSERT):
        count = min(EVENTS_PER_INSERT, events - first)
        client.command(
            _GENERATE,
            {"first": first, "count": count, "departments": DEPARTMENTS, "start_ms": OCTOBER_MS},
        )
    client.command(_WINDOWS)
    before = _cpu_seconds(server)
    output = subprocess.run(
        [sys.executable, "-m", "benchmarks.close", "--close", str(port), str(root)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    used = _cpu_seconds(server) - before
    ((total,),) = client.query("SELECT toString(sum(cost_usd)) FROM usage_events FINAL")
    client.close()
    return {**json.loads(output), "clickhouse_cpu_seconds": used}, str(total)


def _cpu_seconds(server: ServerProcess) -> float:
    """Processor time of the server so far: unlike the wall, it does not depend on neighbours."""
    times = psutil.Process(server.pid).cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    main()
