"""Kill the streams workers in every way, and compare their totals with plain addition.

    python -m tests.streams_chaos --cycles 20 --seed 7 [--kafka apache]

A `Rig` is a set of fresh topics on a running broker, with workers as processes. `chaos` feeds it
from a thread (lanes, re-sends, duplicates, single events, rubbish) while it kills, stops, pauses
and crashes workers, and answers how far the totals are from the truth.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Self, cast

import msgspec

from meterline.app.settings import broker_name
from meterline.backends.failpoints import StreamsFailpoint
from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import KafkaConfig, embedded_kafka
from meterline.backends.kafka.producer import Producer
from meterline.backends.kafka.reader import TopicReader
from meterline.schemas.dead_letter import DeadLetter, decode_dead_letter
from meterline.schemas.spend import SnapshotKey, Totals, decode_snapshot, newer
from meterline.schemas.topics import Topic, TopicSpec, topic_spec
from meterline.schemas.usage import UsageEvent
from meterline.streams.flusher import FENCED_STATUS
from tests.servers import running_broker
from tests.streams_model import Sums, batch, sums, truth
from tests.streams_worker import start_worker

PARTITIONS = 4
READ_SECONDS_MAX = 20.0
# A rebalance takes a session; a loaded machine some more.
CAUGHT_UP_SECONDS_MAX = 150.0
_numbers = itertools.count()


def now_ms() -> int:
    """The current time."""
    return time.time_ns() // 1_000_000


@dataclass
class Rig:
    """Fresh topics on a broker, and the workers that share them."""

    bootstrap: str
    kind: str
    data_dir: Path
    partitions: int = PARTITIONS
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = f"t{next(_numbers)}-{random.randrange(10**9)}"
        # Kafka's brokers allow no shorter session than six seconds; the embedded one does.
        self.config = (
            embedded_kafka(self.bootstrap)
            if self.kind == "embedded"
            else KafkaConfig(self.bootstrap, fetch_max_wait_ms=100, session_timeout_ms=6_000)
        )
        self.options: dict[str, object] = {
            "bootstrap": self.bootstrap,
            "app_id": f"{self.name}-streams",
            "partitions": self.partitions,
            "source_topic": self.topic(Topic.USAGE_EVENTS),
            "snapshot_topic": self.topic(Topic.SPEND_SNAPSHOTS),
            "dead_letter_topic": self.topic(Topic.DEAD_LETTERS),
            "time_zone": "Europe/Berlin",
            "data_dir": str(self.data_dir),
            "idempotent": self.config.idempotent,
            "refetch_gaps": self.config.refetch_gaps,
            "fetch_max_wait_ms": self.config.fetch_max_wait_ms,
            "session_timeout_ms": self.config.session_timeout_ms,
            # A drain takes a second; on a machine full of other work, many.
            "stop_timeout_ms": 40_000,
        }
        specs = [
            self._spec(Topic.USAGE_EVENTS),
            self._spec(Topic.SPEND_SNAPSHOTS),
            self._spec(Topic.DEAD_LETTERS),
        ]
        with contextlib.closing(Admin(self.config)) as admin:
            admin.apply(specs, usage_partitions=self.partitions, replication_factor=1)

    def topic(self, topic: Topic) -> str:
        """The name of a topic in this rig."""
        return f"{self.name}.{topic}"

    def _spec(self, topic: Topic) -> TopicSpec:
        return replace(topic_spec(topic), topic=cast("Topic", self.topic(topic)))

    def start(self, **more: object) -> subprocess.Popen[bytes]:
        """Start one more worker."""
        worker = start_worker({**self.options, **more})
        self.workers.append(worker)
        return worker

    def stop(self, worker: subprocess.Popen[bytes]) -> int:
        """SIGTERM, and its exit status."""
        worker.send_signal(signal.SIGTERM)
        self.workers.remove(worker)
        return worker.wait(60)

    def kill_all(self) -> None:
        """End every worker at once."""
        for worker in self.workers:
            worker.kill()
            worker.wait(10)
        self.workers.clear()

    def snapshots(self) -> dict[SnapshotKey, Totals]:
        """The newest totals of every key, as a reader of the topic has them."""
        best: dict[SnapshotKey, Totals] = {}
        with contextlib.closing(
            TopicReader(self.config, [self.topic(Topic.SPEND_SNAPSHOTS)])
        ) as reader:
            for record in reader.read_to_end(READ_SECONDS_MAX):
                snapshot = decode_snapshot(record.key, record.value)
                if snapshot is None:
                    continue
                if snapshot.totals is None:
                    best.pop(snapshot.key, None)
                    continue
                present = best.get(snapshot.key)
                if present is None or newer(snapshot.totals, present):
                    best[snapshot.key] = snapshot.totals
        return best

    def totals(self) -> Sums:
        """The sums of all shards."""
        out: Sums = {}
        for key, totals in self.snapshots().items():
            for name, numbers in sums({key: totals}).items():
                had = out.get(name, (0, 0, 0, 0))
                out[name] = cast(
                    "tuple[int, int, int, int]", tuple(map(sum, zip(had, numbers, strict=True)))
                )
        return out

    def letters(self) -> list[DeadLetter]:
        """Every dead letter record, repeats included."""
        with contextlib.closing(
            TopicReader(self.config, [self.topic(Topic.DEAD_LETTERS)])
        ) as reader:
            records = reader.read_to_end(READ_SECONDS_MAX)
            return [decode_dead_letter(record.value) for record in records if record.value]

    def wait_for(self, wanted: Sums, seconds: float = CAUGHT_UP_SECONDS_MAX) -> Sums:
        """Read until the totals are as wanted or the time is over; answer the last read."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.totals()
            if found == wanted or time.monotonic() > deadline:
                return found
            time.sleep(0.3)


class Report(NamedTuple):
    """What a chaos run found."""

    events: int
    messages: int
    deaths: dict[str, int]
    missing: int
    """Scope windows whose total is below the truth or absent."""
    extra: int
    """Scope windows whose total is above the truth or should not be there."""


class Feeder:
    """Sends usage from a thread; remembers each distinct event it sent."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self._rig = rig
        self._random = random.Random(seed)
        self._producer = Producer(rig.config, linger_ms=0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._seqs = dict.fromkeys(range(rig.partitions), 0)
        self._sent: list[tuple[int, bytes]] = []
        self.events: list[UsageEvent] = []
        self.messages = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Send no more; everything sent is acknowledged."""
        self._stop.set()
        self._thread.join(20)
        self._producer.flush(20)
        self._producer.close()

    def _run(self) -> None:
        while not self._stop.wait(0.004):
            self._send_one()

    def _send_one(self) -> None:
        drawn = self._random
        partition = drawn.randrange(self._rig.partitions)
        kind = drawn.random()
        if kind < 0.1 and self._sent:
            partition, value = drawn.choice(self._sent[-200:])
        elif kind < 0.15:
            one = self._event()
            self.events.append(one)
            value = msgspec.json.encode(one)
            self._sent.append((partition, value))
        elif kind < 0.17:
            value = drawn.choice([b"{nope", b'{"lane":1}', b"[]", b'{"id":"x"}'])
        else:
            events = [self._event() for _ in range(drawn.randrange(1, 40))]
            self.events += events
            self._seqs[partition] += 1
            value = batch(f"{self._rig.name}/{partition}", self._seqs[partition], events)
            self._sent.append((partition, value))
        self._producer.send(self._rig.topic(Topic.USAGE_EVENTS), b"k", value, partition=partition)
        self.messages += 1

    def _event(self) -> UsageEvent:
        drawn = self._random
        key = drawn.randrange(50)
        return UsageEvent(
            id=f"{drawn.getrandbits(64):016x}-1",
            time_ms=now_ms() - drawn.randrange(3_600_000 if drawn.random() < 0.05 else 2_000),
            organisation="acme",
            department=f"d-{key % 8}",
            project=f"p-{key % 20}",
            key=f"k-{key}",
            model="gpt-4.1",
            input_tokens=drawn.randrange(4_000),
            output_tokens=drawn.randrange(900),
        )


def chaos(rig: Rig, *, cycles: int, seed: int, workers: int = 2) -> Report:
    """Let workers die `cycles` times while usage comes in; then compare with the truth."""
    drawn = random.Random(seed)
    deaths: dict[str, int] = {}
    with Feeder(rig, seed) as feeder:
        for _ in range(workers):
            rig.start()
        time.sleep(5)
        for _ in range(cycles):
            kind = drawn.choice(("kill", "kill", "crash", "crash", "term", "pause"))
            deaths[kind] = deaths.get(kind, 0) + 1
            _die(rig, kind, drawn)
            time.sleep(drawn.uniform(0.5, 4.0))
        feeder.stop()
        feeder.stop = lambda: None  # type: ignore[method-assign] # stopped above
        wanted = truth(feeder.events)
    found = rig.wait_for(wanted)
    for worker in list(rig.workers):
        rig.stop(worker)
    found = rig.totals()
    return Report(
        events=len(feeder.events),
        messages=feeder.messages,
        deaths=deaths,
        missing=sum(found.get(key, (0,) * 4) < value for key, value in wanted.items()),
        extra=sum(wanted.get(key, (0,) * 4) < value for key, value in found.items()),
    )


def _die(rig: Rig, kind: str, drawn: random.Random) -> None:
    """One death of one worker, and its successor."""
    worker = drawn.choice(rig.workers)
    if kind == "term":
        # Where the machine is so busy that the worker stalled for most of its session, it rather
        # ends itself: that is a death as well, and changes no total. One that is still importing has
        # no handler yet, and the signal ends it.
        status = rig.stop(worker)
        assert status in (0, FENCED_STATUS, -signal.SIGTERM), f"a drain ended with status {status}"
        rig.start()
        return
    if kind == "pause":
        # Longer than the session: its partitions go to the other worker meanwhile.
        session = cast("int", rig.options["session_timeout_ms"]) / 1000
        worker.send_signal(signal.SIGSTOP)
        time.sleep(session * 1.5)
        worker.send_signal(signal.SIGCONT)
        assert worker.wait(10) == FENCED_STATUS, "a stalled worker fences itself"
    elif kind == "crash":
        worker.kill()
        worker.wait(10)
        rig.workers.remove(worker)
        point = f"{drawn.choice(list(StreamsFailpoint))}:{drawn.randrange(1, 20)}"
        worker = rig.start(crash_at=point)
        with contextlib.suppress(subprocess.TimeoutExpired):
            # A point that is not reached (no dead letters, no partition) is an ordinary death.
            assert worker.wait(8) == -signal.SIGKILL
    worker.kill()
    worker.wait(10)
    rig.workers.remove(worker)
    rig.start()


@contextlib.contextmanager
def rig_on(bootstrap: str, kind: str, data_dir: Path) -> Iterator[Rig]:
    """A rig whose workers do not survive it."""
    rig = Rig(bootstrap, kind, data_dir)
    try:
        yield rig
    finally:
        rig.kill_all()


def main() -> None:
    """Run it for longer than a test may take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--kafka", type=broker_name, choices=("embedded", "apache"), default="embedded"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        data_dir = Path(directory)
        with (
            running_broker(options.kafka, data_dir / "kafka") as bootstrap,
            rig_on(bootstrap, options.kafka, data_dir) as rig,
        ):
            report = chaos(rig, cycles=options.cycles, seed=options.seed, workers=options.workers)
    print(msgspec.json.encode(report._asdict()).decode())
    raise SystemExit(0 if report.missing == report.extra == 0 else 1)


if __name__ == "__main__":
    main()
