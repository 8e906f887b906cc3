"""A broker with our topics, and short words to write and read alerting's records."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import KafkaConfig, embedded_kafka
from meterline.backends.kafka.producer import Producer
from meterline.backends.kafka.reader import TopicReader
from meterline.schemas.alert import Alert, decode_alert, encode_alert
from meterline.schemas.delivery import Delivery, decode_delivery
from meterline.schemas.money import nano_from_usd
from meterline.schemas.periods import Calendar, WindowKind
from meterline.schemas.policy import PolicyObject, encode_policy, object_id
from meterline.schemas.spend import SnapshotKey, Totals, encode_key, encode_totals
from meterline.schemas.throttle import ThrottleCommand, decode_command, encode_command
from meterline.schemas.topics import TOPICS, Topic
from tests.alerting_worker import now_ms
from tests.servers import running_broker

# A worker on the embedded broker joins its group in seconds; two shared cores may triple that.
PATIENCE_SECONDS = 30.0
_STDERR = 2
GARBAGE = b"{not json"


class Log:
    """The topics around the alerts and notify workers."""

    def __init__(self, config: KafkaConfig) -> None:
        self.config = config
        self.producer = Producer(config, linger_ms=0)
        self.reader = TopicReader(config, (Topic.THROTTLE_COMMANDS, Topic.ALERTS, Topic.DELIVERIES))
        self.commands: list[ThrottleCommand] = []
        self.alerts: list[Alert] = []
        self.deliveries: list[Delivery] = []
        self._offset = 0

    def policy(self, item: PolicyObject) -> None:
        """Write a policy object."""
        self._write(Topic.POLICIES, object_id(item).encode(), encode_policy(item))

    def spend(self, scope: str, usd: str, *, shard: int = 0) -> None:
        """Say what a scope has spent in this month's window, in total."""
        self._offset += 1
        window = Calendar().window(WindowKind.MONTH, now_ms())
        key = SnapshotKey(scope, window.kind, window.start_ms, str(shard))
        cost = nano_from_usd(usd)
        totals = Totals(0, self._offset, window.end_ms, cost, 1, 1, 0, 0, 0, 1, 0, now_ms())
        self._write(Topic.SPEND_SNAPSHOTS, encode_key(key), encode_totals(totals), shard)

    def garbage(self, topic: Topic) -> None:
        """Write a record that Meterline does not write."""
        self._write(topic, b"\xff not a key", GARBAGE)

    def command(self, command: ThrottleCommand) -> None:
        """Write a command as another controller would."""
        self._write(Topic.THROTTLE_COMMANDS, command.scope.encode(), encode_command(command))

    def alert(self, alert: Alert) -> None:
        """Write an alert as the alerts worker does."""
        self._write(Topic.ALERTS, alert.dedup_key.encode(), encode_alert(alert))

    def take(self, seconds: float = 0.2) -> None:
        """Read what came."""
        for record in self.reader.poll(seconds):
            value = record.value or b""
            if value == GARBAGE:
                continue
            match record.topic:
                case Topic.THROTTLE_COMMANDS:
                    self.commands.append(decode_command(value))
                case Topic.ALERTS:
                    self.alerts.append(decode_alert(value))
                case _:
                    self.deliveries.append(decode_delivery(value))

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Read until something holds."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, (
                f"not seen: {what}; {self.commands} {self.alerts} {self.deliveries}"
            )
            self.take()

    def close(self) -> None:
        """Let go."""
        self.reader.close()
        self.producer.close()

    def _write(self, topic: Topic, key: bytes, value: bytes, partition: int = 0) -> None:
        self.producer.send(topic, key, value, partition=partition)
        self.producer.flush(PATIENCE_SECONDS)


@contextmanager
def running_log() -> Iterator[Log]:
    """A fresh embedded broker with every topic."""
    with running_broker() as bootstrap:
        config = embedded_kafka(bootstrap)
        admin = Admin(config)
        admin.apply(TOPICS, usage_partitions=4, replication_factor=1)
        admin.close()
        log = Log(config)
        try:
            yield log
        finally:
            log.close()


@contextmanager
def running_thread(run: Callable[[threading.Event], int]) -> Iterator[list[int]]:
    """A worker in a thread; its exit code appears in the list."""
    stop = threading.Event()
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(run(stop)))
    thread.start()
    try:
        yield codes
    finally:
        stop.set()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


@contextmanager
def worker_process(
    argv: Sequence[str], patience_seconds: float, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker in a process of its own; its log to the errors: benchmarks print figures."""
    process = subprocess.Popen(argv, env=env, stdout=_STDERR)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running_process(
    worker: str, config: KafkaConfig, crash_at: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """The alerts or the notify worker."""
    argv = [sys.executable, "-m", "tests.alerting_worker", worker, config.bootstrap, crash_at]
    with worker_process(argv, PATIENCE_SECONDS) as process:
        yield process
