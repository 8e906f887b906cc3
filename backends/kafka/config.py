"""How to reach a Kafka cluster, and the values that go in and out of the client; needs no driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from typing_extensions import override

# A restarting broker needs about this long, and an operator who mistyped an address should not
# have to wait longer.
BOOTSTRAP_SECONDS_MAX = 10.0


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Record:
    """One record as read; `value` None is a tombstone.

    `timestamp_ms` is the broker's append time where the topic says LogAppendTime.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


# An empty fetch of the embedded broker does not wake on new data, so a long wait is a long delay:
# 5 ms in the median up to 40, 28 ms at 100. And the wait bounds the search for data as well, which
# takes time in proportion to what is still to be read: with 10 a backlog of 60,000 messages was
# read in 28 s, with 40 in 3.5 s.
EMBEDDED_FETCH_WAIT_MS = 40


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """Which cluster, and the few settings in which brokers differ."""

    bootstrap: str
    """`host:port`, several separated by commas."""
    client_id: str = "meterline"
    fetch_max_wait_ms: int = 500
    """40 on the embedded broker, see `EMBEDDED_FETCH_WAIT_MS`."""
    idempotent: bool = True
    """False on the embedded broker, which knows no producer ids."""
    refetch_gaps: bool = False
    """True on the embedded broker, whose fetch may overtake an append (`backends.kafka.gaps`)."""
    session_timeout_ms: int = 10_000
    """3,000 on the embedded broker, whose group join takes half of it."""
    bootstrap_seconds: float = BOOTSTRAP_SECONDS_MAX
    """How long a client's start waits for the first broker."""
    security: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The driver's security_protocol, sasl_* and ssl_* settings; never shown."""

    @property
    def addresses(self) -> list[str]:
        """The bootstrap addresses, one by one."""
        return [part.strip() for part in self.bootstrap.split(",") if part.strip()]

    @override
    def __repr__(self) -> str:
        """Names of security settings only: their values may be secrets."""
        named = ", ".join(sorted(self.security))
        return (
            f"KafkaConfig(bootstrap={self.bootstrap!r}, client_id={self.client_id!r}, "
            f"idempotent={self.idempotent}, security=[{named}])"
        )


def embedded_kafka(bootstrap: str, **more: Any) -> KafkaConfig:
    """The settings that the embedded broker needs; `more` are fields of `KafkaConfig`."""
    base: dict[str, Any] = {
        "fetch_max_wait_ms": EMBEDDED_FETCH_WAIT_MS,
        "idempotent": False,
        "refetch_gaps": True,
        "session_timeout_ms": 3_000,
    }
    return KafkaConfig(bootstrap, **{**base, **more})
