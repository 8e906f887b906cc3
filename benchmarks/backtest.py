"""A back-test over ten million stored events: time, and where it goes.

    python -m benchmarks.backtest [--events 10000000] [--json]

Ten days of one organisation with 10 departments and 50 keys of very different size, as the minute,
hour, day and month rows that streams would have published. ClickHouse makes the events' amounts and
adds them up; the first three days are history. The rules are a budget for every department and key
and the recommended history-based rules. What was spent must be equal to the nano-dollar.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.report import Figure, Target, finish
from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.embedded.clickhouse import start_clickhouse
from meterline.operations.backtest import RulesFile, run_stored
from meterline.operations.policy import compile_policy, parse_policy
from meterline.schemas.money import nano_from_usd
from meterline.schemas.periods import DAY_MS
from meterline.schemas.policy import RULES_ID, RuleSet, ScopePolicy
from meterline.sinks.migrate import migrate

EVENTS = 10_000_000
START_MS = 1_793_491_200_000  # 2026-11-01T00:00Z
DAYS = 10
HISTORY_DAYS = 3
DEPARTMENTS = 10
KEYS = 50
SECONDS_MAX = 60
# One statement makes all minutes; the default of the client is for questions, not for a month of data.
STATEMENT_SECONDS_MAX = 900
# A day's swing, and keys by the cube of a uniform number: the busiest makes a quarter of all events.
_MINUTES = f"""
INSERT INTO spend_windows (window_kind, window_start, window_end, scope_type, organisation, scope,
    shard, cost_usd, input_tokens, output_tokens, events, version)
WITH
    number AS n, cityHash64(n) AS h,
    toUInt32(pow((h % 1000003) / 1000003, 3) * {KEYS}) AS k,
    (bitShiftRight(h, 20) % 1000003) / 1000003 AS u,
    toInt64({{start_ms:Int64}} + {DAYS * DAY_MS} * (u + 0.03 * sin(2 * pi() * {DAYS} * u))) AS t,
    toStartOfMinute(fromUnixTimestamp64Milli(least(t, {{start_ms:Int64}} + {DAYS * DAY_MS} - 1),
        'UTC')) AS minute
SELECT 'minute', minute, addMinutes(minute, 1), splitByChar(':', scope)[1], 'acme',
    arrayJoin(['organisation:acme', concat('department:acme/d-', toString(k % {DEPARTMENTS})),
               concat('key:acme/k-', toString(k))]) AS scope,
    '0', sum(toDecimal128('0.000001', 9) * (bitShiftRight(h, 40) % 3000)), sum(bitShiftRight(h, 44)
        % 900), sum(bitShiftRight(h, 50) % 300), count(), 1
FROM numbers({{events:UInt64}}) GROUP BY minute, scope"""  # noqa: S608 - numbers only
_LONGER = """
INSERT INTO spend_windows (window_kind, window_start, window_end, scope_type, organisation, scope,
    shard, cost_usd, input_tokens, output_tokens, events, version)
SELECT '{kind}', toStartOf{unit}(window_start) AS start, add{unit}s(start, 1), any(scope_type),
    'acme', scope, '0', sum(cost_usd), sum(input_tokens), sum(output_tokens), sum(events), 1
FROM spend_windows WHERE window_kind = 'minute' GROUP BY start, scope"""


def rules_file() -> RulesFile:
    """Budgets that some scopes use up, and the recommended rules."""
    departments = "\n".join(
        f"      - id: d-{number}\n"
        f"        budget: {{month_usd: 1500, day_usd: 150}}\n"
        f"        keys: [{_keys(number)}]"
        for number in range(DEPARTMENTS)
    )
    text = f"""version: 1
rules:
  deviation:
    - {{id: day, threshold_stddev: 4, min_impact_usd: 20, min_increase_percent: 100}}
    - {{id: loop, method: spike, threshold_stddev: 4, min_impact_usd: 20, min_increase_percent: 100}}
  burn_rate:
    - {{id: fast, exhausts_within: 2h, factor: 8}}
organisations:
  - id: acme
    departments:
{departments}
"""
    objects = compile_policy(parse_policy(text, "benchmark"))
    rules = objects[RULES_ID]
    assert isinstance(rules, RuleSet)
    policies = {name: item for name, item in objects.items() if isinstance(item, ScopePolicy)}
    return RulesFile(rules, policies)


def _keys(department: int) -> str:
    return ", ".join(
        f"{{id: k-{number}, budget: {{month_usd: 300, day_usd: 40}}}}"
        for number in range(department, KEYS, DEPARTMENTS)
    )


def measure(client: Client, server_pid: int, events: int) -> list[Figure]:
    """Make the rows, run the rules over them."""
    client.command(_MINUTES, {"start_ms": START_MS, "events": events})
    for kind, unit in (("hour", "Hour"), ("day", "Day"), ("month", "Month")):
        client.command(_LONGER.format(kind=kind, unit=unit))
    begin_ms, end_ms = START_MS + HISTORY_DAYS * DAY_MS, START_MS + DAYS * DAY_MS
    given = rules_file()
    scopes = {"scopes": list(given.policies), "begin": begin_ms, "history": START_MS}
    ((rows, expected),) = client.query(
        "SELECT count(), toString(sumIf(cost_usd, window_start >= "
        "fromUnixTimestamp64Milli({begin:Int64}, 'UTC'))) FROM spend_windows "
        "WHERE window_kind = 'minute' AND scope IN {scopes:Array(String)} AND window_start >= "
        "fromUnixTimestamp64Milli({history:Int64}, 'UTC')",
        scopes,
    )
    ((counted,),) = client.query(
        "SELECT sum(events) FROM spend_windows WHERE scope = 'organisation:acme' "
        "AND window_kind = 'month'"
    )
    server = psutil.Process(server_pid)
    server_begun = _cpu_seconds(server)
    cpu_begun, wall_begun = time.process_time(), time.monotonic()
    done = run_stored(client, given, begin_ms, end_ms)
    wall, cpu = time.monotonic() - wall_begun, time.process_time() - cpu_begun
    return [
        Figure("seconds", [wall], "s"),
        Figure("cpu_seconds", [cpu], "s"),
        Figure("clickhouse_cpu_seconds", [_cpu_seconds(server) - server_begun], "s"),
        Figure("events", [int(counted)], "events"),
        Figure("window_rows", [int(rows)], "rows"),
        Figure("alerts", [len(done.alerts)], "alerts"),
        Figure("throttle_changes", [len(done.commands)], "changes"),
        Figure(
            "unequal_nano_usd",
            [abs(sum(done.spent_nano_usd.values()) - nano_from_usd(str(expected)))],
            "nano-USD",
        ),
    ]


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="meterline-backtest-") as folder:
        server = start_clickhouse(Path(folder) / "data")
        try:
            config = ClickHouseConfig(
                "127.0.0.1", server.port, statement_seconds_max=STATEMENT_SECONDS_MAX
            )
            client = Client(config)
            try:
                migrate(client)
                figures = measure(client, server.pid, arguments.events)
            finally:
                client.close()
        finally:
            server.stop()
    targets = [
        # The machine may be shared: what the run itself used is what it would take alone.
        Target("seconds", "<", SECONDS_MAX),
        Target("cpu_seconds", "<", SECONDS_MAX),
        Target("unequal_nano_usd", "==", 0),
    ]
    finish("backtest", figures, targets, json_flag=arguments.json)


if __name__ == "__main__":
    main()
