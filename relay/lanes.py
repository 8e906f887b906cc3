"""Lanes: the ordered streams of one relay process, one per partition, and how a batch is sealed.

A lane's id is `relay/boot/partition`. The boot id is new with every process, so no two processes
ever write the same lane; `seq` counts a lane's batches from 1 without gaps, because a number is
used only when its batch is in the spool.
"""

from __future__ import annotations

from collections.abc import Sequence

from meterline.relay.spool import SealedBatch
from meterline.schemas.codec import encode

# What a message holds beside its events: the lane (200 characters, six bytes each when JSON
# escapes them), seq and punctuation.
FRAME_BYTES_MAX = 1_300


def lane_id(relay: str, boot: str, partition: int) -> str:
    """The lane's name, which is also the Kafka key of its messages."""
    return f"{relay}/{boot}/{partition}"


def encode_batch(lane: str, seq: int, bodies: Sequence[bytes]) -> bytes:
    """A UsageBatch out of events that are encoded already."""
    return b'{"lane":%b,"seq":%d,"events":[%b]}' % (encode(lane), seq, b",".join(bodies))


class LaneBuffer:
    """The events of one partition that wait to be sealed."""

    __slots__ = (
        "bodies",
        "byte_count",
        "bytes_max",
        "events_max",
        "name",
        "oldest_at",
        "partition",
        "seq",
    )

    def __init__(self, name: str, partition: int, events_max: int, bytes_max: int) -> None:
        """Start empty, before seq 1."""
        self.name = name
        self.partition = partition
        self.events_max = events_max
        self.bytes_max = bytes_max
        self.seq = 0
        self.bodies: list[bytes] = []
        self.byte_count = 0
        self.oldest_at = 0.0

    def has_room(self, body: bytes) -> bool:
        """Whether one more event fits into the batch; an empty lane takes any."""
        return not self.bodies or (
            len(self.bodies) < self.events_max
            and self.byte_count + len(body) + FRAME_BYTES_MAX <= self.bytes_max
        )

    def add(self, body: bytes, now: float) -> None:
        """Add one event; `now` in monotonic seconds."""
        if not self.bodies:
            self.oldest_at = now
        self.bodies.append(body)
        self.byte_count += len(body) + 1

    def full(self) -> bool:
        """Whether waiting longer would bring no more events."""
        return len(self.bodies) >= self.events_max

    def batch(self) -> SealedBatch:
        """The batch as it would be sealed now; the lane is unchanged until `sealed`."""
        seq = self.seq + 1
        value = encode_batch(self.name, seq, self.bodies)
        return SealedBatch(self.name, self.partition, seq, len(self.bodies), value)

    def sealed(self) -> None:
        """The batch is in the spool: count it and start the next."""
        self.seq += 1
        self.bodies = []
        self.byte_count = 0
