"""Exact counting under crashes, replays, re-sends, zombies and compaction, as properties."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meterline.streams.core.ledger import FlushRecords
from tests.streams_model import (
    T0,
    Changelog,
    Message,
    Process,
    accepted,
    batch,
    compacted,
    event,
    factory,
    snapshots,
    sums,
    truth,
)

DEATHS_MAX = 6
LANES = ("r/1/3", "r/2/3")


@st.composite
def logs(draw: st.DrawFn) -> list[Message]:
    """A source log: batches of two lanes, re-sends, gaps, single events, duplicates, rubbish."""
    sent: list[bytes] = []
    seqs = dict.fromkeys(LANES, 0)
    log: list[Message] = []
    for position in range(draw(st.integers(3, 25))):
        kind = draw(st.sampled_from(("batch", "batch", "batch", "resend", "single", "bad", "gap")))
        numbers = draw(st.lists(st.integers(0, 60), min_size=1, max_size=6))
        body = draw(st.sampled_from((0, 0, 0, 1)))
        events = [event(number, body=body) for number in numbers]
        value: bytes | None
        if kind in ("batch", "gap"):
            lane = draw(st.sampled_from(LANES))
            seqs[lane] += 2 if kind == "gap" else 1
            value = batch(lane, seqs[lane], events)
            sent.append(value)
        elif kind == "resend" and sent:
            value = draw(st.sampled_from(sent))
        elif kind == "bad":
            value = draw(st.sampled_from((b"{", None, b'{"lane":"r/1/3","seq":1,"events":[]}')))
        else:
            value = batch(f"single-{position}", 1, events[:1])
        log.append(Message(value, T0 + 70_000 + position))
    return log


class Run:
    """Reads a log with a process that dies as the test draws it."""

    def __init__(self, log: list[Message], data: st.DataObject, horizon: int) -> None:
        self.log = log
        self.data = data
        self.changelog: list[Changelog] = []
        self.new_ledger = factory(ids_horizon=horizon)
        self.process = Process(self.changelog, self.new_ledger)
        self.committed = 0
        self.next = 0
        self.deaths = DEATHS_MAX
        self.zombie: tuple[Process, FlushRecords] | None = None
        self.letters: set[tuple[str, str]] = set()

    def draw(self, strategy: st.SearchStrategy[int]) -> int:
        return self.data.draw(strategy)

    def step(self) -> None:
        for _ in range(self.draw(st.integers(1, 5))):
            if self.next < len(self.log):
                self.process.apply(self.log, self.next)
                self.next += 1
        deaths = ("torn", "before_state", "before_ack", "pause", "rebalance") if self.deaths else ()
        what = self.data.draw(st.sampled_from(("flush", "flush", *deaths)))
        if what == "flush":
            self.flush()
        else:
            self.deaths -= 1
            self.rebalance() if what == "rebalance" else self.die(what)
        if self.zombie and self.data.draw(st.booleans()):
            process, flush = self.zombie
            process.write(flush, state=self.data.draw(st.booleans()))
            self.zombie = None

    def flush(self) -> None:
        self.keep_letters()
        self.process.flush()
        self.committed = self.next

    def die(self, what: str) -> None:
        self.keep_letters()
        flush = self.process.take()
        if flush is not None:
            if what == "torn":
                count = self.draw(st.integers(0, len(flush.entries)))
                self.process.write(flush, count=count, state=False)
            elif what == "before_state":
                self.process.write(flush, state=False)
            elif what == "before_ack":
                self.process.write(flush)
            elif self.zombie is None:
                self.zombie = (self.process, flush)
        self.process = Process(self.changelog, self.new_ledger)
        self.next = self.committed

    def rebalance(self) -> None:
        """The process keeps the partition, perhaps with a flush under way, and reads it again."""
        self.keep_letters()
        flush = self.process.take() if self.data.draw(st.booleans()) else None
        self.process.rebalance(self.draw(st.integers(0, self.process.read)))
        if flush is not None:
            self.process.write(flush)
        self.next = self.committed

    def keep_letters(self) -> None:
        self.letters |= {(letter.key(), letter.reason.value) for letter in self.process.letters}

    def finish(self) -> None:
        while self.next < len(self.log):
            self.step()
        self.zombie = None
        self.flush()
        # The next worker must find the whole truth in the log, and repair what a zombie left.
        last = Process(self.changelog, self.new_ledger)
        last.flush()


@given(log=logs(), data=st.data())
def test_totals_are_exact_whatever_is_killed(log: list[Message], data: st.DataObject) -> None:
    """Any crashes, torn flushes and zombies leave exactly the sums of the distinct events."""
    run = Run(log, data, horizon=100_000)
    run.finish()
    assert sums(snapshots(run.changelog)) == truth(accepted(log))


@given(log=logs(), data=st.data())
def test_the_log_alone_is_enough_after_compaction(log: list[Message], data: st.DataObject) -> None:
    """After healing, the last record of each key is the right one, so compaction loses nothing."""
    run = Run(log, data, horizon=100_000)
    run.finish()
    assert sums(snapshots(compacted(run.changelog))) == truth(accepted(log))


@given(log=logs(), data=st.data(), horizon=st.integers(1, 12))
def test_decisions_are_a_function_of_the_log(
    log: list[Message], data: st.DataObject, horizon: int
) -> None:
    """With an id horizon that overflows, crashes still change no total and no dead letter."""
    run = Run(log, data, horizon)
    run.finish()
    calm = Process([], factory(ids_horizon=horizon))
    for offset in range(len(log)):
        calm.apply(log, offset)
    calm.flush()
    assert sums(snapshots(run.changelog)) == sums(snapshots(calm.changelog))
    assert run.letters == {(letter.key(), letter.reason.value) for letter in calm.letters}


@given(log=logs(), cuts=st.lists(st.integers(0, 24), max_size=6))
def test_flush_boundaries_do_not_matter(log: list[Message], cuts: list[int]) -> None:
    """However the messages fall into flushes, the totals are the same."""
    process = Process([], factory())
    for offset in range(len(log)):
        process.apply(log, offset)
        if offset in cuts:
            process.flush()
    process.flush()
    assert sums(snapshots(process.changelog)) == truth(accepted(log))
