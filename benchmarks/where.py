"""Where: the trace of one event among ten million, and what the index for it costs on disk.

The rows are made inside ClickHouse, shaped like a relay's: ids of 40 random characters, 500 keys,
8 departments, 100 events a batch, 30 days. Asked for are ids that are there, from the whole range,
and ids that are not; each with a new client, as the command has.

    python -m benchmarks.where [--json]
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from benchmarks.report import Figure, Target, finish, json_argument
from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.embedded.clickhouse import start_clickhouse
from meterline.operations.event_trace import read_event_trace
from meterline.schemas.periods import Calendar
from meterline.sinks.migrate import migrate

EVENTS = 10_000_000
BLOCK = 1_000_000
LOOKUPS = 15
SECONDS_MAX = 1.0
START_MS = 1_793_000_000_000
STATEMENT_SECONDS_MAX = 600

_EVENTS = """
INSERT INTO usage_events (event_id, event_time, organisation, department, project, user, key,
    model, model_sent, input_tokens, output_tokens, cost_usd, priced, price_version,
    received_delay_ms, source_partition, version)
SELECT concat('req-', hex(sipHash64(number)), hex(sipHash64(number, 7)), '-0'),
       fromUnixTimestamp64Milli({start:Int64} + number * 259, 'UTC'), 'acme',
       concat('department-', toString(sipHash64(number, 1) % 500 % 8)),
       concat('project-', toString(sipHash64(number, 1) % 500 % 40)),
       concat('user-', toString(sipHash64(number, 2) % 150)),
       concat('key-', toString(sipHash64(number, 1) % 500)),
       'gpt-4.1', 'gpt-4.1', sipHash64(number, 3) % 5000, sipHash64(number, 4) % 900,
       toDecimal64(sipHash64(number, 5) % 90000000, 0) / 1000000000, 1, 'v1',
       sipHash64(number, 6) % 300, intDiv(number, 100) % 4,
       2 * (9223372036854775807 - bitOr(bitShiftLeft(intDiv(number, 400), 9), number % 100))
FROM numbers({first:UInt64}, {count:UInt64})"""
_BATCHES = """
INSERT INTO usage_batches (lane, seq, source_partition, received_at, events, version)
SELECT concat('relay/boot/', toString(number % 4)), intDiv(number, 4) + 1, number % 4,
       fromUnixTimestamp64Milli({start:Int64} + number * 25900, 'UTC'), 100,
       2 * (9223372036854775807 - bitShiftLeft(intDiv(number, 4), 9))
FROM numbers({count:UInt64})"""
_ID = "SELECT concat('req-', hex(sipHash64({n:UInt64})), hex(sipHash64({n:UInt64}, 7)), '-0')"
_BYTES = """
SELECT sum(data_compressed_bytes), sum(secondary_indices_compressed_bytes), sum(rows)
FROM system.parts WHERE active AND table = {table:String} AND database = currentDatabase()"""


def fill(client: Client) -> None:
    """Ten million events and their batches."""
    for first in range(0, EVENTS, BLOCK):
        client.command(_EVENTS, {"start": START_MS, "first": first, "count": BLOCK})
    client.command(_BATCHES, {"start": START_MS, "count": EVENTS // 100})


def lookups(config: ClickHouseConfig, ids: list[str], status: str) -> list[float]:
    """Seconds of each lookup; a wrong answer is an error."""
    seconds = []
    for event_id in ids:
        client = Client(config)
        begun = time.perf_counter()
        trace = read_event_trace(client, event_id, Calendar("UTC"))
        seconds.append(time.perf_counter() - begun)
        client.close()
        assert trace.status == status, trace
        assert status == "unknown" or trace.arrivals[0].lane, trace
    return seconds


def main() -> None:
    """Fill, measure, report."""
    json_flag = json_argument(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        server = start_clickhouse(Path(folder))
        try:
            config = ClickHouseConfig(
                "127.0.0.1", server.port, statement_seconds_max=STATEMENT_SECONDS_MAX
            )
            client = Client(config)
            migrate(client)
            fill(client)
            draw = random.Random(1)
            numbers = [draw.randrange(EVENTS) for _ in range(LOOKUPS)]
            ids = [client.query(_ID, {"n": number})[0][0] for number in numbers]
            found = lookups(config, ids, "counted")
            missing = lookups(config, [f"{event_id}-not" for event_id in ids], "unknown")
            data, index, rows = client.query(_BYTES, {"table": "usage_events"})[0]
            batches, _, _ = client.query(_BYTES, {"table": "usage_batches"})[0]
            client.close()
        finally:
            server.stop()
    figures = [
        Figure("found_seconds", found, "s"),
        Figure("found_worst_seconds", [max(found)], "s"),
        Figure("missing_seconds", missing, "s"),
        Figure("event_bytes", [data / rows], "bytes"),
        Figure("index_bytes_per_event", [index / rows], "bytes"),
        Figure("batches_bytes_per_event", [batches / rows], "bytes"),
    ]
    targets = [
        Target("found_seconds", "<", SECONDS_MAX),
        Target("found_worst_seconds", "<", SECONDS_MAX),
        Target("missing_seconds", "<", SECONDS_MAX),
    ]
    finish("where", figures, targets, json_flag=json_flag)


if __name__ == "__main__":
    main()
