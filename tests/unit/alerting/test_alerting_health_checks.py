"""Health checks of the pipeline: what is measured, what fires, and when it is over."""

from __future__ import annotations

import msgspec

from meterline.alerting.core import engine
from meterline.alerting.core.pipeline_alerts import inspect
from meterline.alerting.core.state import HealthChecksSeen, PublishAlert, State
from meterline.alerting.core.totals import SpendTotals
from meterline.alerting.health_checks import HealthCheckThread, LagClock
from meterline.alerting.rules.pipeline import (
    PIPELINE,
    HealthCheck,
    HealthCheckKind,
    HealthCheckRound,
)
from meterline.backends.kafka.config import KafkaConfig
from meterline.schemas.alert import Alert, AlertStatus
from meterline.schemas.periods import DAY_MS, HOUR_MS
from meterline.schemas.policy import RuleSet
from meterline.schemas.spend import (
    SnapshotKey,
    SpendSnapshot,
    StreamState,
    Totals,
    decode_stream_state,
)
from meterline.streams.core.lanes import LaneState
from meterline.streams.core.ledger import StateRecord, decode_state

NOW_MS = 1_793_000_000_000
HOUR_START_MS = NOW_MS // HOUR_MS * HOUR_MS
NOTHING = HealthCheckRound(frozenset(), ())


def counted(
    scope: str, start_ms: int, cost: int, tokens: int = 10, unpriced: int = 0
) -> SpendTotals:
    """The totals of one hour of one scope."""
    totals = SpendTotals()
    add(totals, scope, start_ms, cost, tokens, unpriced)
    return totals


def add(
    totals: SpendTotals, scope: str, start_ms: int, cost: int, tokens: int = 10, unpriced: int = 0
) -> None:
    """One more hour of one scope."""
    key = SnapshotKey(scope, "hour", start_ms, "0")
    value = Totals(0, 1, start_ms + HOUR_MS, cost, tokens, 0, 0, 0, 0, 1, unpriced, start_ms)
    totals.apply(SpendSnapshot(key, value))


def seen(
    totals: SpendTotals, lanes: dict[str, int], found: HealthCheckRound = NOTHING
) -> HealthChecksSeen:
    """One look."""
    return inspect(totals, lanes, found, HOUR_START_MS, NOW_MS)


def published(state: State, observation: HealthChecksSeen, after_ms: int = 0) -> list[Alert]:
    """What the engine says."""
    _, effects = engine.step(state, observation, NOW_MS + after_ms)
    return [effect.alert for effect in effects if isinstance(effect, PublishAlert)]


def test_health_checks_that_never_started_can_be_stopped() -> None:
    """A worker whose start fails says why, and not that there is no thread to wait for."""
    HealthCheckThread(KafkaConfig("127.0.0.1:1"), "meterline-streams", lambda: NOW_MS).stop()


def test_lag_is_the_age_of_the_oldest_message_that_is_not_counted() -> None:
    """New messages do not make it younger, and counting some of them does not end it."""
    clock = LagClock()
    assert clock.seconds({0: 0, 1: 0}, {0: 10, 1: 10}, NOW_MS) == 0
    assert clock.seconds({0: 5, 1: 0}, {0: 15, 1: 10}, NOW_MS + 10_000) == 0
    assert clock.seconds({0: 25, 1: 0}, {0: 35, 1: 10}, NOW_MS + 20_000) == 10
    assert clock.seconds({0: 21, 1: 3}, {0: 35, 1: 13}, NOW_MS + 30_000) == 20
    assert clock.seconds({0: 20, 1: 3}, {0: 35, 1: 13}, NOW_MS + 40_000) == 20
    assert clock.seconds({0: 0, 1: 0}, {0: 35, 1: 13}, NOW_MS + 50_000) == 0


def test_a_group_that_counts_every_message_in_time_has_no_lag() -> None:
    """A constant backlog of the last seconds is not a growing age."""
    clock = LagClock()
    ages = [clock.seconds({0: 100}, {0: 100 * n}, NOW_MS + n * 10_000) for n in range(1, 20)]
    assert max(ages) <= 10


def test_a_silent_relay_is_notified_once_and_resolved_by_its_next_message() -> None:
    """By the newest of its lanes; one that has been silent for a day was retired."""
    state = engine.start(1, RuleSet(), NOW_MS)
    lanes = {
        "east/b1/0": NOW_MS - 5 * HOUR_MS,
        "east/b2/0": NOW_MS - 1_000,
        "west/b1/0": NOW_MS - 901_000,
        "old/b1/0": NOW_MS - DAY_MS,
    }
    (alert,) = published(state, seen(SpendTotals(), lanes))
    assert (alert.rule_id, alert.scope) == ("pipeline.relay_silent", "pipeline:relay/west")
    assert (alert.observed, alert.limit, alert.unit) == (901, 900, "seconds")
    assert published(state, seen(SpendTotals(), lanes), 10_000) == []
    lanes["west/b2/0"] = NOW_MS
    (over,) = published(state, seen(SpendTotals(), lanes), 20_000)
    assert (over.status, over.dedup_key) == (AlertStatus.RESOLVED, alert.dedup_key)


def test_a_lane_that_no_relay_names_is_not_missed() -> None:
    """A malformed message may name any lane; only `relay/boot/n` is a relay that comes back."""
    lanes = {"garbage": NOW_MS - HOUR_MS, "half/a-name": NOW_MS - HOUR_MS}
    assert published(engine.start(1, RuleSet(), NOW_MS), seen(SpendTotals(), lanes)) == []


def test_tokens_that_cost_nothing_are_notified_of_keys_with_a_price() -> None:
    """Without a price it is `unpriced`, fired for the organisation; below the limit it is nothing."""
    state = engine.start(1, RuleSet(), NOW_MS)
    totals = counted("key:acme/free", HOUR_START_MS, 0, tokens=100_000)
    add(totals, "key:acme/few", HOUR_START_MS, 0, tokens=99_999)
    add(totals, "key:acme/paid", HOUR_START_MS, 1, tokens=100_000)
    add(totals, "key:acme/new", HOUR_START_MS, 0, tokens=100_000, unpriced=2)
    add(totals, "organisation:acme", HOUR_START_MS, 1, tokens=399_999, unpriced=2)
    alerts = published(state, seen(totals, {}))
    assert {(alert.rule_id, alert.scope, alert.observed) for alert in alerts} == {
        ("pipeline.zero_cost", "key:acme/free", 100_000),
        ("pipeline.unpriced", "organisation:acme", 2),
    }


def test_lag_is_notified_above_its_limit() -> None:
    """A minute by default, with how many messages wait."""
    state = engine.start(1, RuleSet(), NOW_MS)

    def lag(seconds: int) -> HealthChecksSeen:
        probe = HealthCheck(HealthCheckKind.LAG, PIPELINE, seconds, "(7 messages)")
        return seen(SpendTotals(), {}, HealthCheckRound(frozenset({HealthCheckKind.LAG}), (probe,)))

    assert published(state, lag(59)) == []
    (alert,) = published(state, lag(60), 10_000)
    assert alert.rule_id == "pipeline.lag"
    assert "7 messages" in alert.summary
    assert [each.status for each in published(state, lag(0), 20_000)] == [AlertStatus.RESOLVED]


def test_what_alerting_reads_of_the_streams_state_is_what_streams_write() -> None:
    """Field by field in the same order: the record is an array, in which names do not show."""
    names = [field.name for field in msgspec.structs.fields(StateRecord)]
    assert [field.name for field in msgspec.structs.fields(StreamState)] == names
    lanes = {"east/b1/0": LaneState(4, NOW_MS, 2, missing=[(1, 1)])}
    record = StateRecord(1, 2, 3, 4, 5, [6, 7, 8, 9], 10, lanes)
    value = msgspec.json.encode(record)
    read = decode_stream_state(value)
    assert decode_state(value) == record
    assert (read.lanes["east/b1/0"].seq, read.lanes["east/b1/0"].last_ms) == (4, NOW_MS)
    for name in set(names) - {"lanes"}:
        assert getattr(read, name) == getattr(record, name)
