"""What happens, as one queue: records of the topics and reports of the relays."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Any

import msgspec

from meterline.backends.kafka.config import KafkaConfig, Record
from meterline.backends.kafka.errors import BrokerUnavailableError
from meterline.backends.kafka.reader import TopicReader
from meterline.schemas.topics import Topic

TOPICS = (Topic.ALERTS, Topic.THROTTLE_COMMANDS, Topic.THROTTLE_ACKS)
POLL_SECONDS = 0.2
# A demonstration has thousands of facts; without a reader, newer ones beyond this are dropped.
FACTS_MAX = 100_000
RELAY_STOP_SECONDS = 20.0  # its own drain takes up to 15


@dataclass(frozen=True, slots=True)
class RelayReport:
    """One JSON line of a relay."""

    kind: str
    fields: dict[str, Any]


Fact = Record | RelayReport


class Feed:
    """Collects facts from a topic reader's thread and one thread per relay."""

    def __init__(self, kafka: KafkaConfig) -> None:
        """Create a feed that reads nothing before `start`."""
        self._facts: queue.Queue[Fact] = queue.Queue(FACTS_MAX)
        self._stop = threading.Event()
        self._kafka = kafka
        self._relays: list[subprocess.Popen[bytes]] = []
        self._topics = threading.Thread(target=self._follow, name="topics", daemon=True)

    def start(self) -> None:
        """Begin to follow the topics."""
        self._topics.start()

    def start_relay(self, name: str, arguments: list[str], environment: dict[str, str]) -> None:
        """Start a relay process and follow its reports."""
        process = subprocess.Popen(  # noqa: S603 - a module of this package
            [
                sys.executable,
                "-m",
                "meterline.app.local.demo.relay_node",
                "--name",
                name,
                *arguments,
            ],
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self._relays.append(process)
        threading.Thread(target=self._listen, args=(process,), name=name, daemon=True).start()

    def next(self, timeout_seconds: float) -> Fact | None:
        """The next fact; None when there was none in time."""
        try:
            return self._facts.get(timeout=max(timeout_seconds, 0))
        except queue.Empty:
            return None

    def stop_relays(self) -> None:
        """Ask every relay to drain and end; their last reports follow."""
        for process in self._relays:
            process.terminate()
        for process in self._relays:
            try:
                process.wait(RELAY_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._relays.clear()

    def close(self) -> None:
        """Stop following; ends relays that still run."""
        self.stop_relays()
        self._stop.set()
        if self._topics.is_alive():
            self._topics.join(10 * POLL_SECONDS)

    def _follow(self) -> None:
        reader = TopicReader(self._kafka, [topic.value for topic in TOPICS])
        try:
            while not self._stop.is_set():
                with contextlib.suppress(BrokerUnavailableError):
                    for record in reader.poll(POLL_SECONDS):
                        self._put(record)
        finally:
            reader.close()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                fields = msgspec.json.decode(line, type=dict[str, Any])
                self._put(RelayReport(fields.pop("kind"), fields))

    def _put(self, fact: Fact) -> None:
        with contextlib.suppress(queue.Full):
            self._facts.put_nowait(fact)
