"""Topics, groups and brokers: what an operator's commands and the start-up need."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer
from kafka import TopicPartition as DriverPartition
from kafka import errors as driver
from kafka.admin import ConfigFilterType, ConfigResource, ConfigResourceType
from kafka.structs import OffsetAndMetadata

from meterline.backends.kafka.client import common_options, start_client
from meterline.backends.kafka.config import KafkaConfig, TopicPartition
from meterline.backends.kafka.consuming import consumer_options
from meterline.backends.kafka.error_mapping import client_error, mapped
from meterline.backends.kafka.errors import BrokerUnavailableError, KafkaFatalError
from meterline.schemas.topics import TopicSpec

# Creating a topic on KRaft takes well under a second; this is for a loaded cluster.
TOPIC_READY_SECONDS_MAX = 15.0
TOPIC_READY_POLL_SECONDS = 0.05
# A new cluster's first coordinator takes about a second; on a machine full of other work, many.
COORDINATOR_SECONDS_MAX = 30.0
COORDINATOR_RETRY_SECONDS = 0.1
_COORDINATOR_ERRORS = (
    driver.CoordinatorNotAvailableError,
    driver.CoordinatorLoadInProgressError,
    driver.NotCoordinatorError,
)
# Asking for the ends of partitions: one fetch each.
ENDS_SECONDS_MAX = 10.0
# A fetch that is made for the high watermark alone should bring little.
ENDS_FETCH_BYTES = 1_024
# At the end a broker would hold the fetch back for this long before it answers with the end.
ENDS_FETCH_WAIT_MS = 10
# One step of waiting for the ends.
ENDS_STEP_MS = 100


class TopicAction(StrEnum):
    """What was done to a topic."""

    CREATED = "created"
    PARTITIONS_GROWN = "partitions grown"
    CONFIG_CHANGED = "config changed"


@dataclass(frozen=True, slots=True)
class TopicChange:
    """One line of what `apply` did."""

    topic: str
    action: TopicAction
    detail: str


class Admin:
    """The cluster's administration; safe to use from one thread at a time."""

    def __init__(self, config: KafkaConfig, *, bootstrap_seconds: float | None = None) -> None:
        """Connect.

        Raises:
            BrokerUnavailableError: no broker answers within `bootstrap_seconds` (given here or in `config`).
            KafkaFatalError: the settings cannot work.
        """
        if bootstrap_seconds is not None:
            config = replace(config, bootstrap_seconds=bootstrap_seconds)
        self._config = config
        self._driver = self._open()
        self._closed = False

    def apply(
        self, specs: Sequence[TopicSpec], *, usage_partitions: int, replication_factor: int
    ) -> list[TopicChange]:
        """Make the cluster's topics what the registry says; a second call changes nothing.

        Creates what is missing, grows partitions (Kafka cannot shrink them: more than asked for
        are left), sets configuration that differs.

        Args:
            specs: the registry's rows.
            usage_partitions: partitions of topics whose row says 0.
            replication_factor: of topics that are created; existing ones are left.

        Raises:
            KafkaFatalError: the cluster refuses; the message says which topic and why.
        """
        wanted = {str(spec.topic): spec for spec in specs}
        counts = {name: spec.partitions or usage_partitions for name, spec in wanted.items()}
        with mapped("applying topics"):
            present = self._counts(list(wanted))
            missing = [name for name in wanted if name not in present]
            changes = self._create(missing, wanted, counts, replication_factor)
            for name in present:
                changes += self._grow(name, present[name], counts[name])
                changes += self._configure(wanted[name])
        return changes

    def partitions(self, topic: str) -> int:
        """The number of a topic's partitions.

        Raises:
            KafkaFatalError: there is no such topic.
        """
        with mapped(f"looking for {topic}"):
            count = self._counts([topic]).get(topic)
        if count is None:
            message = f"topic {topic} does not exist: run `meterline topics apply`"
            raise KafkaFatalError(message)
        return count

    def group_lag(self, group: str, topic: str) -> Mapping[int, int] | None:
        """Records that a group has not committed, by partition; None if it never committed.

        A partition without a commit counts from its beginning.
        """
        with mapped(f"asking for the lag of {group}"):
            offsets = {
                each.partition: stored.offset
                for each, stored in self._committed(group).items()
                if each.topic == topic and stored.offset >= 0
            }
            if not offsets:
                return None
            ends, beginnings = self._ends(topic)
        return {
            number: max(0, end - offsets.get(number, beginnings[number]))
            for number, end in ends.items()
        }

    def committed(self, group: str, topic: str) -> Mapping[int, int]:
        """The next offset that a group will read, by partition; none where it never committed."""
        with mapped(f"asking for the committed offsets of {group}"):
            return {
                each.partition: stored.offset
                for each, stored in self._committed(group).items()
                if each.topic == topic and stored.offset >= 0
            }

    def ends(self, topic: str) -> Mapping[int, int]:
        """The offset that the next record of each partition gets."""
        with mapped(f"asking for the ends of {topic}"):
            return self._ends(topic)[0]

    def set_offsets(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Store where a group without members begins to read.

        Raises:
            KafkaFatalError: refused; a group that has members commits for itself.
        """
        wanted = {
            DriverPartition(each.topic, each.partition): OffsetAndMetadata(offset, "", -1)
            for each, offset in offsets.items()
        }
        doing = f"setting the offsets of {group}"

        def alter() -> dict[Any, Any]:
            answer: dict[Any, Any] = self._driver.alter_group_offsets(group, wanted)
            for error in answer.values():
                if issubclass(error, _COORDINATOR_ERRORS):
                    raise error
            return answer

        with mapped(doing):
            answer = self._ask_coordinator(alter)
        for partition, error in answer.items():
            if error is not driver.NoError:
                message = f"{doing}: {partition.topic}: {error.__name__}; stop its workers first"
                raise KafkaFatalError(message)

    def held(self, topic: str) -> Mapping[int, int]:
        """Records that a topic holds, by partition."""
        with mapped(f"asking for the ends of {topic}"):
            ends, beginnings = self._ends(topic)
        return {number: end - beginnings[number] for number, end in ends.items()}

    def brokers(self) -> tuple[str, ...]:
        """`host:port` of every broker that the cluster names."""
        with mapped("asking for the brokers"):
            described = self._driver.describe_cluster()
            return tuple(
                sorted(f"{broker['host']}:{broker['port']}" for broker in described["brokers"])
            )

    def ping(self, timeout_seconds: float) -> None:
        """Return if a broker answers a new connection; BrokerUnavailableError if none does in time."""
        Admin(self._config, bootstrap_seconds=timeout_seconds).close()

    def close(self) -> None:
        """Close the connection; idempotent."""
        if not self._closed:
            self._closed = True
            with mapped("closing the admin client"):
                self._driver.close()

    def _open(self) -> Any:
        options = {
            name: option
            for name, option in common_options(self._config).items()
            if name in KafkaAdminClient.DEFAULT_CONFIG
        }
        return start_client(KafkaAdminClient, self._config, options)

    def _counts(self, names: list[str]) -> dict[str, int]:
        return {
            found["name"]: len(found["partitions"])
            for found in self._driver.describe_topics(names)
            if not found["error_code"] and found["partitions"]
        }

    def _create(
        self,
        missing: list[str],
        wanted: Mapping[str, TopicSpec],
        counts: Mapping[str, int],
        replication_factor: int,
    ) -> list[TopicChange]:
        if not missing:
            return []
        answer = self._driver.create_topics(
            {
                name: {
                    "num_partitions": counts[name],
                    "replication_factor": replication_factor,
                    "configs": dict(wanted[name].config),
                }
                for name in missing
            },
            raise_errors=False,
        )
        for row in answer["topics"]:
            error = driver.for_code(row["error_code"])
            # Another process was quicker: what it made is checked by the next apply.
            if error not in (driver.NoError, driver.TopicAlreadyExistsError):
                raise client_error(error(row.get("error_message") or ""), f"creating {row['name']}")
        self._driver.wait_for_topics(missing, timeout_ms=int(TOPIC_READY_SECONDS_MAX * 1000))
        return [
            TopicChange(name, TopicAction.CREATED, f"{counts[name]} partitions") for name in missing
        ]

    def _grow(self, name: str, present: int, wanted: int) -> list[TopicChange]:
        if present >= wanted:
            return []
        doing = f"growing {name} from {present} to {wanted} partitions"
        try:
            self._driver.create_partitions({name: wanted})
        except driver.IncompatibleBrokerVersion as error:
            # The embedded broker: its topics live only as long as it does.
            message = f"{doing}: this broker cannot; restart it, or use Apache Kafka"
            raise KafkaFatalError(message) from error
        except driver.KafkaError as error:
            raise client_error(error, doing) from error
        deadline = time.monotonic() + TOPIC_READY_SECONDS_MAX
        while self._counts([name]).get(name, 0) < wanted:
            if time.monotonic() > deadline:
                message = f"{doing}: not seen within {TOPIC_READY_SECONDS_MAX:g} s"
                raise BrokerUnavailableError(message)
            time.sleep(TOPIC_READY_POLL_SECONDS)
        return [TopicChange(name, TopicAction.PARTITIONS_GROWN, f"{present} -> {wanted}")]

    def _configure(self, spec: TopicSpec) -> list[TopicChange]:
        name = str(spec.topic)
        present = self._topic_config(name)
        differing = {key: text for key, text in spec.config.items() if present.get(key) != text}
        if not differing:
            return []
        detail = ", ".join(
            f"{key}: {present.get(key, '?')} -> {text}" for key, text in sorted(differing.items())
        )
        resource = ConfigResource(ConfigResourceType.TOPIC, name, differing)
        answer = self._driver.alter_configs([resource], raise_on_unknown=False)["topic"][name]
        if answer != "OK":
            message = f"setting the configuration of {name} ({detail}): {answer}"
            raise KafkaFatalError(message)
        return [TopicChange(name, TopicAction.CONFIG_CHANGED, detail)]

    def _topic_config(self, name: str) -> dict[str, str]:
        resource = ConfigResource(ConfigResourceType.TOPIC, name)
        described = self._driver.describe_configs([resource], config_filter=ConfigFilterType.ALL)[
            "topic"
        ][name]
        return {key: entry["value"] for key, entry in described.items()}

    def _committed(self, group: str) -> dict[Any, Any]:
        try:
            answer = self._ask_coordinator(lambda: self._driver.list_group_offsets({group: None}))
        except driver.GroupIdNotFoundError:
            return {}
        committed: dict[Any, Any] = answer[group]
        return committed

    def _ask_coordinator(self, ask: Callable[[], dict[Any, Any]]) -> dict[Any, Any]:
        """Ask what only a group's coordinator answers; wait for one within the bound.

        A new cluster makes the topic of the offsets when the first group is asked for.
        """
        deadline = time.monotonic() + COORDINATOR_SECONDS_MAX
        while True:
            try:
                return ask()
            except _COORDINATOR_ERRORS as error:
                if time.monotonic() > deadline:
                    raise
                time.sleep(COORDINATOR_RETRY_SECONDS)
                if isinstance(error, driver.NotCoordinatorError):
                    # The client never forgets a coordinator that it once found.
                    self._driver.close()
                    self._driver = self._open()

    def _ends(self, topic: str) -> tuple[dict[int, int], dict[int, int]]:
        """High watermarks, by one small fetch per partition, and the beginnings."""
        deadline = time.monotonic() + ENDS_SECONDS_MAX
        partitions = [DriverPartition(topic, number) for number in range(self.partitions(topic))]
        with self._probe(partitions) as consumer:
            # Near the end, so that little is fetched; see TopicReader on why it is not the end.
            for partition, near in consumer.end_offsets(partitions).items():
                consumer.seek(partition, near)
            beginnings = consumer.beginning_offsets(partitions)
            while any(consumer.highwater(each) is None for each in partitions):
                if time.monotonic() > deadline:
                    message = f"no answer about the end of {topic} within {ENDS_SECONDS_MAX:g} s"
                    raise BrokerUnavailableError(message)
                consumer.poll(timeout_ms=ENDS_STEP_MS)
            ends = {each.partition: consumer.highwater(each) for each in partitions}
        return ends, {each.partition: offset for each, offset in beginnings.items()}

    @contextmanager
    def _probe(self, partitions: list[Any]) -> Iterator[Any]:
        options = {
            **consumer_options(self._config),
            "group_id": None,
            "fetch_max_wait_ms": ENDS_FETCH_WAIT_MS,
            "fetch_max_bytes": ENDS_FETCH_BYTES,
            "max_partition_fetch_bytes": ENDS_FETCH_BYTES,
        }
        consumer: Any = start_client(KafkaConsumer, self._config, options)
        try:
            consumer.assign(partitions)
            yield consumer
        finally:
            consumer.close(autocommit=False)
