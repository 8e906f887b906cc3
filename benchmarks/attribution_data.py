"""Events of three months, made inside ClickHouse: what benchmarks.attribution asks about.

Five organisations, 500 departments, 5,000 keys of which the busiest makes 6 % of all requests,
eight models (a key uses three of them), 15,000 users, token counts with a long tail. Ids are a
relay's number, its start and a count ("sequence"), or UUIDs of version 7: 74 random bits, which no
codec can shorten.
Every hundredth event is stored a second time, as a re-send: same body, later place in the log.
"""

from __future__ import annotations

from typing import Literal

from meterline.backends.clickhouse.client import Client

START_MS = 1_782_864_000_000  # 2026-07-01T00:00Z
DAYS = 92
DAY_MS = 86_400_000
KEYS = 5_000
DEPARTMENTS = 500
PARTITIONS = 8
# Of one INSERT: a million rows are a part of 30 MB, and 300 MB of memory.
ROWS_PER_INSERT = 1_000_000
RESENT_EVERY = 100

Ids = Literal["sequence", "uuid7"]

_MODELS = (
    ("gpt-4.1", "openai", 2_000, 8_000),
    ("gpt-4.1-mini", "openai", 400, 1_600),
    ("claude-sonnet-4.5", "anthropic", 3_000, 15_000),
    ("claude-haiku-4.5", "anthropic", 1_000, 5_000),
    ("gemini-2.5-flash", "google", 300, 2_500),
    ("gemini-2.5-pro", "google", 1_250, 10_000),
    ("deepseek-v3.2", "deepseek", 280, 420),
    ("mistral-large", "mistral", 2_000, 6_000),
)
NAMES = ", ".join(f"'{model[0]}'" for model in _MODELS)
_PROVIDERS = ", ".join(f"'{model[1]}'" for model in _MODELS)
_IN = ", ".join(str(model[2]) for model in _MODELS)
_OUT = ", ".join(str(model[3]) for model in _MODELS)


def _uniform(salt: int) -> str:
    """A number in [0, 1) that the event's number fixes."""
    return f"(cityHash64(n, {salt}) / 18446744073709551616)"


def _normal(salt: int) -> str:
    """A logistic number with deviation 1: nearly normal, with a longer tail, of one hash."""
    u = f"((cityHash64(n, {salt}) + 1) / 18446744073709551618)"
    return f"(0.5513 * log({u} / (1 - {u})))"


def _id(kind: Ids) -> str:
    if kind == "sequence":
        return (
            "concat('relay-', toString(n % 3), '-66c1f2a0-', leftPad(toString(n), 12, '0'), '-0')"
        )
    random = "lower(leftPad(hex(cityHash64(n, 71)), 16, '0'))"
    time = "lower(leftPad(hex(toUInt64(t)), 12, '0'))"
    return (
        f"concat(substring({time}, 1, 8), '-', substring({time}, 9, 4), '-7', "
        f"substring({random}, 1, 3), '-', substring('89ab', 1 + bitAnd(n * 7919, 3), 1), "
        f"substring({random}, 4, 3), '-', substring({random}, 7, 10), "
        f"lower(substring(leftPad(hex(cityHash64(n, 72)), 16, '0'), 1, 2)), '-0')"
    )


def numbered(first: int, rows: int, total: int, *, resent: bool) -> str:
    """Every attribute of the events, by name; `n` is the event's number."""
    times = f"toInt64({START_MS} + intDiv(n * {DAYS * DAY_MS}, {total})"
    step = RESENT_EVERY if resent else 1
    return f"""
SELECT number * {step} + {first} AS n,
       {times} + {_uniform(1)} * 2000) AS t,
       toUInt32(floor({KEYS} * pow({_uniform(2)}, 3))) AS k,
       k % {DEPARTMENTS} AS d,
       {_uniform(3)} AS m,
       1 + (k + if(m < 0.7, 0, if(m < 0.9, 1, 2))) % {len(_MODELS)} AS model_number,
       toInt64(exp(6.5 + 1.2 * {_normal(10)})) AS tokens_in,
       toInt64(exp(5.0 + 1.0 * {_normal(20)})) AS tokens_out,
       if({_uniform(4)} < 0.3, intDiv(tokens_in, 3), 0) AS tokens_cached
FROM numbers({rows // step})"""  # noqa: S608 - numbers only


def insert_events(
    client: Client,
    first: int,
    rows: int,
    total: int,
    *,
    ids: Ids = "sequence",
    resent: bool = False,
) -> None:
    """Store events `first` to `first + rows` of `total`; with `resent` every hundredth once more."""
    # A re-send comes an hour's worth of batches later.
    later = 1_000_000 if resent else 0
    client.command(f"""
INSERT INTO usage_events (event_id, event_time, organisation, department, project, user,
    environment, key, key_name, model, model_sent, provider, operation, input_tokens, output_tokens,
    cache_read_tokens, cost_usd, priced, price_version, usage_source, status, http_status, stream,
    latency_ms, ttft_ms, relay, tags, received_delay_ms, source_partition, version)
SELECT {_id(ids)}, fromUnixTimestamp64Milli(t, 'UTC'), concat('org-', toString(d % 5)),
    concat('department-', toString(d)), concat('project-', toString(k % 1000)),
    concat('user-', toString(k * 3 + n % 3)), if(k % 4 = 0, 'staging', 'production'),
    concat('key-', leftPad(toString(k), 5, '0')), concat('Key number ', toString(k)),
    arrayElement([{NAMES}], model_number) AS name, name,
    arrayElement([{_PROVIDERS}], model_number), 'chat', tokens_in, tokens_out, tokens_cached,
    toDecimal64(0, 9) + reinterpret(
        tokens_in * arrayElement([{_IN}], model_number)
        + tokens_out * arrayElement([{_OUT}], model_number), 'Decimal(18, 9)'),
    1, '2026-07', 'provider_reported', 'ok', 200, n % 2,
    toInt32(exp(7 + 0.8 * {_normal(30)})) AS latency, toInt32(latency / 5 + {_uniform(5)} * 50),
    concat('relay-', toString(n % 3)), if(n % 5 = 0, map('feature', toString(k % 9)), map()),
    toInt64(20 + {_uniform(6)} * 100), intDiv(n, 100) % {PARTITIONS},
    2 * (9223372036854775807 - ((intDiv(n, 100 * {PARTITIONS}) + {later}) * 512 + n % 100))
FROM ({numbered(first, rows, total, resent=resent)})
SETTINGS max_partitions_per_insert_block = 0, optimize_on_insert = 0""")  # noqa: S608 - numbers only


def mark_changes(client: Client) -> None:
    """The marks that sinks write after their rows: here all at once, by partition."""
    client.command("""
INSERT INTO usage_changes
SELECT organisation, department, toDate(event_time), concat('usage.events-',
       toString(source_partition)), max(source_offset) + 1
FROM usage_events
GROUP BY organisation, department, toDate(event_time), source_partition""")


def insert_windows(client: Client) -> None:
    """The window rows that streams would have published: of keys, by day and by month."""
    for kind, start in (("day", "toStartOfDay"), ("month", "toStartOfMonth")):
        client.command(f"""
INSERT INTO spend_windows (window_kind, window_start, window_end, scope_type, organisation, scope,
    shard, cost_usd, input_tokens, output_tokens, cache_read_tokens, events, last_event_time, version)
SELECT '{kind}', toDateTime64({start}(event_time), 3, 'UTC') AS start_, addDays(start_, 1), 'key',
       organisation, concat('key:', organisation, '/', key), toString(source_partition),
       sum(cost_usd), sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), count(),
       max(event_time), max(source_offset) + 1
FROM usage_events FINAL
GROUP BY start_, organisation, key, source_partition
SETTINGS max_partitions_per_insert_block = 0""")  # noqa: S608 - fixed names
