"""What the relay's own requests pay: a gate decision and an emit.

    python -m benchmarks.gate [--json]

Both are measured in the process of a whole relay client on a real embedded broker: the sealing and
sending threads work, and the subscriber follows its topics. The gate holds a policy for every scope
of the request, and throttles on some, so that a decision walks its longest way.

Emits come in two forms: paced (a thousand per second, as a busy relay's requests do) and back to
back (nothing between two emits, which is also the throughput).
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks.report import Figure, Target, finish, json_argument
from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import embedded_kafka
from meterline.embedded.broker import start_broker
from meterline.relay.client import RelayClient
from meterline.relay.emitter import EmitOutcome
from meterline.relay.gate import Admission, GateRequest
from meterline.relay.settings import RelaySettings, SpoolSettings
from meterline.schemas.metrics import NoMeter
from meterline.schemas.policy import Limits, ScopePolicy
from meterline.schemas.scopes import scopes_of
from meterline.schemas.throttle import BreakerState, ThrottleCommand, ThrottleLimits
from meterline.schemas.topics import TOPICS
from meterline.schemas.usage import UsageEvent

ROUNDS = 5
KEYS = 500
DEPARTMENTS = 8
PARTITIONS = 4
DECISIONS = 40_000
EMITS_PACED = 1_000
PACE_SECONDS = 0.001
# Below the queue's bound, so that no emit of a round is refused.
EMITS_BACK_TO_BACK = 40_000
FLUSH_SECONDS_MAX = 60.0
BLOCKED_DEPARTMENT = 0
REDUCED_DEPARTMENT = 1


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


def percentiles_us(nanoseconds: list[int]) -> tuple[float, float]:
    """p50 and p99 in microseconds."""
    ordered = sorted(nanoseconds)
    return statistics.median(ordered) / 1_000, ordered[len(ordered) * 99 // 100] / 1_000


def request(number: int) -> GateRequest:
    """The request of one of the keys."""
    key = number % KEYS
    department = key % DEPARTMENTS
    return GateRequest(
        "acme",
        f"k-{key}",
        "gpt-4.1",
        f"d-{department}",
        f"p-{key % 20}",
        f"u-{key % 100}@acme.test",
    )


def say_everything(client: RelayClient) -> None:
    """Policy for every scope, one department blocked, one reduced."""
    at_ms = now_ms()
    for number in range(KEYS):
        asked = request(number)
        for scope in scopes_of(
            asked.organisation, asked.department, asked.project, asked.user, asked.key
        ):
            limits = Limits(
                requests_per_minute=10**9,
                burst_requests=10**9,
                tokens_per_minute=10**12,
                allowed_models=("gpt-4.1", "claude-sonnet-4.5"),
            )
            client.gate.apply_policy(ScopePolicy(scope=scope, limits=limits), at_ms)
    states = {BLOCKED_DEPARTMENT: BreakerState.OPEN, REDUCED_DEPARTMENT: BreakerState.HALF_OPEN}
    for department, state in states.items():
        command = ThrottleCommand(
            scope=f"department:acme/d-{department}",
            epoch=1,
            seq=1,
            state=state,
            limits=ThrottleLimits(requests_per_minute=10**8, burst_requests=10**8),
            reason="benchmark",
            reason_code="budget_exhausted",
            issued_at_ms=at_ms,
            expires_at_ms=at_ms + 3_600_000,
        )
        client.gate.apply(command, at_ms)


def measure_decisions(client: RelayClient) -> list[int]:
    """Nanoseconds of each decision, timer included."""
    requests = [request(number) for number in range(KEYS)]
    decide, clock = client.gate.decide, time.perf_counter_ns
    taken: list[int] = []
    refused = 0
    for asked in itertools.islice(itertools.cycle(requests), DECISIONS):
        at_ms = now_ms()
        start = clock()
        decision = decide(asked, at_ms)
        taken.append(clock() - start)
        refused += decision.admission is Admission.REJECT
    expected = sum(row.department == f"d-{BLOCKED_DEPARTMENT}" for row in requests)
    assert refused == expected * DECISIONS // KEYS, "the gate did not refuse the blocked department"
    return taken


def event_maker() -> Callable[[], UsageEvent]:
    """Makes events of a usual size; ids never repeat."""
    counter = itertools.count()

    def make() -> UsageEvent:
        number = next(counter)
        asked = request(number)
        return UsageEvent(
            id=f"req-{number:012d}:1",
            time_ms=now_ms(),
            organisation=asked.organisation,
            key=asked.key,
            model=asked.model,
            department=asked.department,
            project=asked.project,
            user=asked.user,
            provider="openai",
            input_tokens=1_200,
            output_tokens=300,
            cache_read_tokens=400,
            status="ok",
            http_status=200,
            latency_ms=900,
            tags={"environment": "production", "feature": "chat"},
        )

    return make


def measure_emits(
    client: RelayClient, make: Callable[[], UsageEvent], count: int, pace_seconds: float
) -> list[int]:
    """Nanoseconds of each emit; the event is made outside the measured time."""
    emit, clock = client.emitter.emit, time.perf_counter_ns
    taken: list[int] = []
    for _ in range(count):
        event = make()
        start = clock()
        outcome = emit(event)
        taken.append(clock() - start)
        assert outcome is EmitOutcome.ACCEPTED, outcome
        if pace_seconds:
            time.sleep(pace_seconds)
    return taken


@contextmanager
def running_client() -> Iterator[RelayClient]:
    """A relay client on an embedded broker of its own."""
    server = start_broker()
    try:
        kafka = embedded_kafka(server.address)
        admin = Admin(kafka)
        admin.apply(TOPICS, usage_partitions=PARTITIONS, replication_factor=1)
        admin.close()
        with tempfile.TemporaryDirectory() as directory:
            settings = RelaySettings("benchmark", kafka, SpoolSettings(Path(directory)))
            client = RelayClient(settings, now_ms, NoMeter())
            assert client.start(wait_ready_seconds=10), "the gate did not become ready"
            try:
                yield client
            finally:
                client.close()
    finally:
        server.stop()


def main() -> None:
    """Measure and print."""
    json_flag = json_argument(__doc__)
    names = (
        "decide_p50_us",
        "decide_p99_us",
        "emit_p50_us",
        "emit_p99_us",
        "emit_burst_p50_us",
        "emit_burst_p99_us",
        "delivered_events_per_second",
    )
    rounds: list[tuple[float, ...]] = []
    with running_client() as client:
        say_everything(client)
        make = event_maker()
        event_bytes = len(msgspec.json.encode(make()))
        # The first round warms caches and the driver up and is not counted.
        for _ in range(ROUNDS + 1):
            decisions = percentiles_us(measure_decisions(client))
            paced = percentiles_us(measure_emits(client, make, EMITS_PACED, PACE_SECONDS))
            assert client.emitter.flush(FLUSH_SECONDS_MAX)
            start = time.perf_counter()
            burst = percentiles_us(measure_emits(client, make, EMITS_BACK_TO_BACK, 0.0))
            assert client.emitter.flush(FLUSH_SECONDS_MAX), "events were not delivered"
            rate = EMITS_BACK_TO_BACK / (time.perf_counter() - start)
            rounds.append((*decisions, *paced, *burst, rate))
    columns = dict(zip(names, zip(*rounds[1:], strict=True), strict=True))
    figures = [
        Figure(name, values, "1/s" if name.endswith("second") else "us")
        for name, values in columns.items()
    ]
    figures.append(Figure("event_bytes", [event_bytes], "bytes"))
    targets = [
        Target("decide_p99_us", "<", 5.0),
        Target("emit_p99_us", "<", 20.0),
        Target("emit_burst_p99_us", "<", 20.0),
        Target("delivered_events_per_second", ">", 10_000),
    ]
    finish("gate", figures, targets, json_flag=json_flag)


if __name__ == "__main__":
    main()
