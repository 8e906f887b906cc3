"""Properties of the relay: exact shares, a spool that keeps what it was given, gapless lanes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from typing_extensions import override

from meterline.relay.emitter import EmitOutcome, Emitter
from meterline.relay.gate import Admission, Gate, GateRequest
from meterline.relay.lanes import encode_batch
from meterline.relay.settings import EmitterSettings, SpoolSettings
from meterline.relay.spool import SealedBatch, Spool, SpooledBatch, SpoolFullError
from meterline.schemas.codec import decode_usage, encode
from meterline.schemas.policy import Limits, ScopePolicy
from meterline.schemas.throttle import BreakerState, ThrottleCommand
from tests.relays import (
    DEADLINE_SECONDS,
    NOW,
    CountingMeter,
    ScriptedBroker,
    assert_lanes_gapless,
    relay_settings,
    usage_event,
)

REQUEST = GateRequest("acme", "k", "m", "research")


@given(percent=st.integers(0, 100), requests=st.integers(0, 2_000))
def test_share_of_any_run_is_exact(percent: int, requests: int) -> None:
    """For every share and every number of requests exactly floor(n * share) are admitted."""
    gate = Gate()
    gate.set_ready()
    gate.apply(
        ThrottleCommand(
            scope="department:acme/research",
            epoch=1,
            seq=1,
            state=BreakerState.THROTTLED,
            admit_percent=percent,
            reason="r",
            reason_code="manual",
            issued_at_ms=NOW,
            expires_at_ms=NOW + 1_000_000,
        ),
        NOW,
    )
    passed = sum(
        gate.decide(REQUEST, NOW + at).admission is Admission.ADMIT for at in range(requests)
    )
    assert passed == requests * percent // 100


@given(
    rate=st.integers(1, 5_000),
    burst=st.integers(1, 500),
    steps=st.lists(st.tuples(st.integers(-500, 30_000), st.integers(0, 40)), max_size=40),
)
def test_rate_is_never_exceeded(rate: int, burst: int, steps: list[tuple[int, int]]) -> None:
    """Whatever the arrivals and the clock do, no more than burst + rate * elapsed get through."""
    gate = Gate()
    gate.set_ready()
    limits = Limits(requests_per_minute=rate, burst_requests=burst)
    gate.apply_policy(ScopePolicy(scope="department:acme/research", limits=limits), NOW)
    now_ms, forward_ms, passed = NOW, 0, 0
    for step_ms, arrivals in steps:
        now_ms += step_ms
        forward_ms += max(0, step_ms)
        for _ in range(arrivals):
            passed += gate.decide(REQUEST, now_ms).admission is Admission.ADMIT
        assert passed * 60_000 <= min(burst, rate) * 60_000 + rate * forward_ms


PRINTABLE = st.text(
    st.characters(exclude_categories=("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs")),
    min_size=1,
    max_size=20,
)


@given(
    events=st.lists(
        st.builds(usage_event, st.integers(0, 10**9), PRINTABLE, PRINTABLE),
        min_size=1,
        max_size=20,
    ),
    seq=st.integers(1, 2**53),
)
def test_sealed_batch_reads_back(events: list[object], seq: int) -> None:
    """What is sealed is what the shared decoder reads: all events, nothing rejected."""
    value = encode_batch("r/b/1", seq, [encode(event) for event in events])
    message = decode_usage(value, NOW)
    assert (message.lane, message.seq, message.rejects) == ("r/b/1", seq, ())
    assert list(message.events) == events


class SpoolMachine(RuleBasedStateMachine):
    """Append, drop, crash and torn tails in any order: a model in a dict is always matched."""

    @initialize(segment_bytes=st.integers(100, 3_000))
    def open_first(self, segment_bytes: int) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.settings = SpoolSettings(
            Path(self.directory.name), bytes_max=20_000, segment_bytes=segment_bytes
        )
        self.spool = Spool(self.settings)
        self.model: dict[int, bytes] = {}
        self.places: dict[int, SpooledBatch] = {}
        self.seq = 0

    @rule(value=st.binary(min_size=0, max_size=900))
    def append(self, value: bytes) -> None:
        try:
            place = self.spool.append(SealedBatch("r/b/0", 0, self.seq + 1, 1, value))
        except SpoolFullError:
            assert self.spool.bytes_used > 20_000 - 1_000
            return
        self.seq += 1
        self.places[self.seq] = place
        self.model[self.seq] = value

    @rule(choice=st.integers(0, 10**6))
    def drop(self, choice: int) -> None:
        if self.places:
            seq = sorted(self.places)[choice % len(self.places)]
            self.spool.drop(self.places.pop(seq))
            del self.model[seq]

    @rule(garbage=st.binary(max_size=40))
    def crash(self, garbage: bytes) -> None:
        """The process dies, maybe during a write; the next one starts."""
        self.spool.close()
        newest = max(self.settings.directory.glob("*.segment"), default=None)
        if newest is not None:
            with newest.open("ab") as file:
                file.write(garbage)
        self.spool = Spool(self.settings)
        self.places = {place.seq: place for place in self.spool.leftover}

    @invariant()
    def holds_the_model(self) -> None:
        found = {seq: self.spool.read(place) for seq, place in self.places.items()}
        assert found == self.model
        assert list(found) == sorted(found)
        assert self.spool.bytes_used <= 20_000
        assert self.spool.batches_waiting == len(self.model)

    @override
    def teardown(self) -> None:
        if hasattr(self, "spool"):
            self.spool.close()
            self.directory.cleanup()


SpoolMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestSpoolMachine = SpoolMachine.TestCase


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("emit"), st.integers(1, 80)),
        st.tuples(st.just("flush"), st.just(0)),
        st.tuples(st.just("down"), st.just(0)),
        st.tuples(st.just("up"), st.just(0)),
        st.tuples(st.just("lose"), st.integers(1, 3)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=12,
)


class _Relay:
    """A relay whose process ends and starts again on the same spool."""

    def __init__(self, directory: str, broker: ScriptedBroker) -> None:
        self.settings = relay_settings(
            Path(directory), emitter=EmitterSettings(linger_ms=2, partitions_wait_seconds=0.05)
        )
        self.broker = broker
        self.emitted = 0
        self.emitter = self.start()

    def start(self) -> Emitter:
        emitter = Emitter(self.settings, lambda: NOW, CountingMeter(), connect=self.broker.connect)
        emitter.start()
        return emitter

    def do(self, step: str, amount: int) -> None:
        match step:
            case "emit":
                for number in range(self.emitted, self.emitted + amount):
                    assert self.emitter.emit(usage_event(number)) is EmitOutcome.ACCEPTED
                self.emitted += amount
            case "flush":
                self.emitter.flush(DEADLINE_SECONDS if self.broker.up else 0.02)
            case "down" | "up":
                self.broker.up = step == "up"
            case "lose":
                self.broker.lose_answers = amount
            case _:
                self.emitter.close(0.05)
                self.emitter = self.start()


@settings(max_examples=15, deadline=None)
@given(steps=STEPS)
def test_lanes_are_gapless_whatever_happens(steps: list[tuple[str, int]]) -> None:
    """Under any order of troubles every accepted event arrives, in lanes without gaps."""
    broker = ScriptedBroker(2)
    with tempfile.TemporaryDirectory() as directory:
        relay = _Relay(directory, broker)
        try:
            for step, amount in steps:
                relay.do(step, amount)
            broker.up = True
            broker.lose_answers = 0
            assert relay.emitter.flush(DEADLINE_SECONDS)
        finally:
            relay.emitter.close(1.0)
    assert sorted(broker.events()) == sorted(f"e{number}" for number in range(relay.emitted))
    for partition in list(broker.log):
        assert_lanes_gapless(broker.messages(partition))
