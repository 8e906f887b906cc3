"""Back-test and explain against the real ClickHouse engine."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.operations.backtest import RulesFile, run_stored
from meterline.operations.explain import chain_of, explain_scope, past_objects
from meterline.reports.decisions import read_alerts, read_commands, read_objects
from meterline.schemas.manual import BudgetOverride, ManualThrottle
from meterline.schemas.money import NANO_PER_USD
from meterline.schemas.periods import DAY_MS, HOUR_MS, MINUTE_MS, parse_rfc3339
from meterline.schemas.policy import Budget, PolicyObject, RuleSet, ScopePolicy, object_id
from meterline.schemas.throttle import BreakerState
from meterline.sinks.migrate import migrate
from tests.servers import running_clickhouse

pytestmark = pytest.mark.functional
KEY = "key:acme/k-1"
START_MS = parse_rfc3339("2026-11-10T00:00:00Z")
GIVEN = RulesFile(
    RuleSet(deviations=()),
    {KEY: ScopePolicy(scope=KEY, budget=Budget(month_nano_usd=100 * NANO_PER_USD))},
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with running_clickhouse(tmp_path_factory.mktemp("store")) as (host, port):
        client = Client(ClickHouseConfig(host, port))
        migrate(client)
        yield client
        client.close()


def add_window(client: Client, kind: str, start_ms: int, end_ms: int, usd: int) -> None:
    client.command(
        "INSERT INTO spend_windows (window_kind, window_start, window_end, scope_type, "
        "organisation, scope, shard, cost_usd, input_tokens, events, version) VALUES "
        "({kind:String}, fromUnixTimestamp64Milli({start:Int64}, 'UTC'), "
        "fromUnixTimestamp64Milli({end:Int64}, 'UTC'), 'key', 'acme', {scope:String}, '0', "
        "toDecimal128({usd:String}, 9), 1000, 1, 1)",
        {"kind": kind, "start": start_ms, "end": end_ms, "scope": KEY, "usd": str(Decimal(usd))},
    )


def add_event(client: Client, number: int, time_ms: int, usd: int) -> None:
    client.command(
        "INSERT INTO usage_events (event_id, event_time, organisation, department, key, cost_usd, "
        "input_tokens, priced, version, is_deleted) VALUES ({id:String}, "
        "fromUnixTimestamp64Milli({at:Int64}, 'UTC'), 'acme', 'd', 'k-1', "
        "toDecimal64({usd:String}, 9), 1000, true, 2, 0)",
        {"id": f"e-{number}", "at": time_ms, "usd": str(Decimal(usd))},
    )


def test_both_sources_fire_alike(store: Client) -> None:
    """From window rows and from raw events: the same alerts, at the same minutes, to the cent."""
    spent = ((-DAY_MS, 30), (5 * MINUTE_MS, 40), (2 * HOUR_MS, 20), (30 * HOUR_MS, 25))
    for number, (after_ms, usd) in enumerate(spent):
        at_ms = START_MS + after_ms
        add_event(store, number, at_ms, usd)
        add_window(store, "minute", at_ms, at_ms + MINUTE_MS, usd)
        hour_ms = at_ms // HOUR_MS * HOUR_MS
        add_window(store, "hour", hour_ms, hour_ms + HOUR_MS, usd)
    end_ms = START_MS + 3 * DAY_MS
    runs = [
        run_stored(store, GIVEN, START_MS, end_ms, from_events=from_events)
        for from_events in (False, True)
    ]
    for run in runs:
        fired = [(entry.at_ms - START_MS, entry.alert.threshold) for entry in run.alerts]
        assert fired == [(5 * MINUTE_MS, 50), (2 * HOUR_MS, 90), (30 * HOUR_MS, 100)]
        assert run.spent_nano_usd == {KEY: 85 * NANO_PER_USD}
        # Half-open at 90 %: half of the last 25 dollars would have been refused.
        assert run.refused_nano_usd == {KEY: 12_500_000_000}
    assert runs[0].alerts == runs[1].alerts


def test_explain_reads_what_was_decided(store: Client) -> None:
    """Since when counts from the first command of the state, not from its last renewal."""
    for seq, (state, minute) in enumerate((("throttled", 0), ("open", 10), ("open", 15)), start=1):
        store.command(
            "INSERT INTO throttle_commands (scope, epoch, seq, state, reason, reason_code, "
            "evidence, issued_at, expires_at, reset_at, version) VALUES ({scope:String}, 1, "
            "{seq:UInt64}, {state:String}, 'spent', 'budget_exhausted', '{\"observed\": 1}', "
            "fromUnixTimestamp64Milli({at:Int64}, 'UTC'), "
            "fromUnixTimestamp64Milli({at:Int64} + 900000, 'UTC'), "
            "fromUnixTimestamp64Milli({reset:Int64}, 'UTC'), 1)",
            {
                "scope": KEY,
                "seq": seq,
                "state": state,
                "at": START_MS + minute * MINUTE_MS,
                "reset": START_MS + DAY_MS,
            },
        )
    later_ms = START_MS + 20 * MINUTE_MS
    found = explain_scope(KEY, read_commands(store, KEY, later_ms), {}, later_ms)
    assert (found.state, found.version) == (BreakerState.OPEN, "1.3")
    assert found.since_ms == START_MS + 10 * MINUTE_MS
    assert found.until_ms == START_MS + DAY_MS
    assert found.evidence == {"observed": 1}
    assert "budget override" in found.lift
    before_ms = START_MS + 5 * MINUTE_MS
    then = explain_scope(KEY, read_commands(store, KEY, before_ms), {}, before_ms)
    assert then.state is BreakerState.THROTTLED
    assert read_alerts(store, [KEY], later_ms) == []


def add_action(client: Client, number: int, at_ms: int, item: PolicyObject) -> None:
    client.command(
        "INSERT INTO audit_log (id, at, actor, action, object_id, reason, before, after, version) "
        "VALUES ({id:String}, fromUnixTimestamp64Milli({at:Int64}, 'UTC'), 'ann', 'set', "
        "{name:String}, 'why', '', {after:String}, {number:UInt64})",
        {
            "id": str(number),
            "at": at_ms,
            "name": object_id(item),
            "after": item.model_dump_json(),
            "number": number,
        },
    )


def test_explain_shows_the_orders_of_that_time(store: Client) -> None:
    """Orders and the scopes above are those of the moment asked for, not the newest ones."""
    research = "department:acme/research"
    key = ScopePolicy(scope="key:acme/k-9", parent=research)
    block = ManualThrottle(
        scope=key.scope,
        admit_percent=0,
        since_ms=START_MS + HOUR_MS,
        until_ms=START_MS + 5 * HOUR_MS,
        author="ann",
        reason="leaked",
    )
    released = block.model_copy(update={"version": 2, "until_ms": START_MS + 2 * HOUR_MS})
    override = BudgetOverride(
        scope=research,
        month_nano_usd=1,
        since_ms=START_MS + 3 * HOUR_MS,
        until_ms=START_MS + DAY_MS,
        author="ben",
        reason="launch",
    )
    moved = key.model_copy(update={"version": 2, "parent": ""})
    done: tuple[tuple[int, PolicyObject], ...] = (
        *((0, key), (1, block), (2, released)),
        *((3, override), (4, moved)),
    )
    for number, (hours, item) in enumerate(done, start=1):
        add_action(store, number, START_MS + hours * HOUR_MS, item)

    def orders(at_ms: int) -> dict[str, tuple[str, ...]]:
        known = past_objects(key.scope, lambda names: read_objects(store, names, at_ms))
        scopes = chain_of(key.scope, known)
        return {each: explain_scope(each, (), known, at_ms).orders for each in scopes}

    nothing: dict[str, tuple[str, ...]] = {key.scope: (), research: (), "organisation:acme": ()}
    assert orders(START_MS) == nothing
    blocked = "blocked by ann until 2026-11-10T05:00:00.000Z: leaked"
    assert orders(START_MS + 90 * MINUTE_MS) == {**nothing, key.scope: (blocked,)}
    assert orders(START_MS + 2 * HOUR_MS) == nothing
    (given,) = orders(START_MS + 3 * HOUR_MS)[research]
    assert given.startswith("budget overridden by ben")
    assert list(orders(START_MS + 4 * HOUR_MS)) == [key.scope, "organisation:acme"]
