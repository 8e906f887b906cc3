"""A log that was lost: what the store has and what comes afterwards make the exact totals."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meterline.schemas.codec import decode_usage
from meterline.schemas.periods import WindowKind
from meterline.schemas.spend import SnapshotKey, Totals, decode_snapshot
from meterline.schemas.usage import UsageEvent
from meterline.streams.core.bootstrap import (
    BOOTSTRAP_OFFSET,
    BootstrapPolicy,
    PartitionBootstrap,
    StoredLane,
    bootstrap_records,
    bootstrap_totals,
    closed_before_ms,
)
from meterline.streams.core.ledger import LedgerPolicy
from tests.streams_model import (
    CALENDAR,
    PARTITION,
    T0,
    Changelog,
    Message,
    Process,
    accepted,
    batch,
    event,
    factory,
    rate,
    snapshots,
    sums,
    truth,
)

LANES = ("r/1/3", "r/2/3")
EPOCH = 4


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Message], int]:
    """Batches of two lanes with gaps and re-sends, duplicates, conflicts; and where it is lost."""
    sent: list[bytes] = []
    seqs = dict.fromkeys(LANES, 0)
    log: list[Message] = []
    for position in range(draw(st.integers(2, 25))):
        kind = draw(st.sampled_from(("batch", "batch", "batch", "resend", "single", "gap")))
        numbers = draw(st.lists(st.integers(0, 60), min_size=1, max_size=6))
        events = [event(number, body=draw(st.sampled_from((0, 0, 1)))) for number in numbers]
        if kind == "resend" and sent:
            value = draw(st.sampled_from(sent))
        elif kind == "single":
            value = batch(f"single-{position}", 1, events[:1])
        else:
            lane = draw(st.sampled_from(LANES))
            seqs[lane] += 2 if kind == "gap" else 1
            value = batch(lane, seqs[lane], events)
        sent.append(value)
        log.append(Message(value, T0 + 70_000 + position))
    return log, draw(st.integers(1, len(log)))


def stored_lanes(log: list[Message]) -> list[StoredLane]:
    """What usage_batches holds of these messages."""
    numbers: dict[str, set[int]] = {}
    last: dict[str, int] = {}
    for value, timestamp_ms in log:
        message = decode_usage(value, timestamp_ms)
        numbers.setdefault(message.lane, set()).add(message.seq)
        last[message.lane] = timestamp_ms
    lanes = []
    for name, had in numbers.items():
        missing = [(seq, seq) for seq in range(1, max(had)) if seq not in had]
        lanes.append(StoredLane(name, max(had), last[name], tuple(missing)))
    return lanes


def stored_totals(events: list[UsageEvent]) -> list[tuple[SnapshotKey, Totals]]:
    """What a sum over usage_events says, by plain addition."""
    newest = {}
    for key, (cost, tokens, count, unpriced) in truth(events).items():
        end_ms = CALENDAR.window(WindowKind(key[1]), key[2]).end_ms
        numbers = (cost, tokens, 0, 0, 0, 0, count, unpriced, T0)
        newest[SnapshotKey(*key, str(PARTITION))] = bootstrap_totals(EPOCH, end_ms, numbers)
    return list(newest.items())


def opened(log: list[Message], horizon: int = 100_000) -> list[Changelog]:
    """The changelog of the new log before its first message."""
    policy = LedgerPolicy(epoch=EPOCH, source_topic="usage.events", ids_horizon=horizon)
    events = accepted(log)
    newest_ms = max((one.time_ms for one in events), default=0)
    partition = PartitionBootstrap(
        PARTITION, stored_totals(events), events[-horizon:], stored_lanes(log)
    )
    flush = bootstrap_records(BootstrapPolicy(policy, log[-1].timestamp_ms, newest_ms), partition)
    return [Changelog(PARTITION, key, value) for key, value in [*flush.entries, flush.state]]


@given(logs(), st.data())
def test_totals_go_on_as_if_nothing_was_lost(
    drawn: tuple[list[Message], int], data: st.DataObject
) -> None:
    """Old and new log together are counted as one, through re-sends, restarts and a late start."""
    log, lost = drawn
    changelog = opened(log[:lost])
    again = data.draw(st.lists(st.sampled_from(log[:lost]), max_size=3))
    rest = [*again, *log[lost:]]
    process = Process(changelog, factory(epoch=EPOCH))
    for offset in range(len(rest)):
        process.apply(rest, offset)
        if data.draw(st.booleans()):
            process.flush()
        if data.draw(st.integers(0, 4)) == 0:
            process = Process(changelog, factory(epoch=EPOCH))
            for replayed in range(process.ledger.offset + 1, offset + 1):
                process.apply(rest, replayed)
    process.flush()
    assert sums(snapshots(changelog)) == truth(accepted(log))


@given(logs())
def test_a_rebuild_made_twice_is_made_once(drawn: tuple[list[Message], int]) -> None:
    """Killed anywhere and run again, it leaves the same state."""
    log, lost = drawn
    whole = opened(log[:lost])
    torn = [*whole[: len(whole) // 2], *whole]
    once, twice = Process(whole, factory(epoch=EPOCH)), Process(torn, factory(epoch=EPOCH))
    assert once.ledger.state() == twice.ledger.state()
    assert once.replica.entries == twice.replica.entries
    assert once.ledger.offset == BOOTSTRAP_OFFSET


@given(logs(), st.integers(1, 20))
def test_a_full_index_forgets_the_oldest(drawn: tuple[list[Message], int], horizon: int) -> None:
    """With a small horizon the newest ids are known, and re-sent batches are still recognised."""
    log, lost = drawn
    changelog = opened(log[:lost], horizon)
    process = Process(changelog, factory(epoch=EPOCH, ids_horizon=horizon))
    before = sums(snapshots(changelog))
    for number, message in enumerate(log[:lost]):
        process.apply([message] * (number + 1), number)
    process.flush()
    assert sums(snapshots(changelog)) == before


def test_windows_that_are_not_kept_stay_closed() -> None:
    """A late event of a window that was left out begins no new total from zero."""
    policy = factory(epoch=EPOCH).policy
    late = event(0, time_ms=T0)
    watermark_ms = T0 + 4 * 3_600_000
    kept = [
        (key, totals)
        for key, totals in stored_totals([late])
        if totals.end_ms > closed_before_ms(policy.retention, WindowKind(key.kind), watermark_ms)
    ]
    flush = bootstrap_records(
        BootstrapPolicy(policy, watermark_ms, T0), PartitionBootstrap(PARTITION, kept, [late], [])
    )
    changelog = [Changelog(PARTITION, *record) for record in [*flush.entries, flush.state]]
    process = Process(changelog, factory(epoch=EPOCH))
    other = event(1, time_ms=T0 + 1)
    process.apply([Message(batch("l/1/3", 1, [other]), watermark_ms)], 0)
    process.flush()
    found = {decode_snapshot(one.key, one.value) for one in changelog}
    kinds = {one.key.kind for one in found if one is not None}
    assert kinds == {"hour", "day", "month"}
    month = [one for one in sums(snapshots(changelog)).items() if one[0][1] == "month"]
    assert {count for _, (_, _, count, _) in month if count} <= {1, 2}
    assert rate(other)[0] + rate(late)[0] in {cost for _, (cost, _, _, _) in month}
