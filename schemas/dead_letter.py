"""Dead letters: events and messages that could not be counted, with reason and original bytes.

The key is made of the source position, so writing the same dead letter twice after a crash is
harmless.
"""

from __future__ import annotations

import base64

import msgspec

from meterline.schemas.reasons import RejectReason

ORIGINAL_BYTES_MAX = 64_000
"""A longer original is cut: the source offset still names the whole one while the log keeps it."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One rejected event, or a whole message where `index` is -1."""

    topic: str
    partition: int
    offset: int
    index: int
    reason: RejectReason
    detail: str
    event_id: str = ""
    lane: str = ""
    seq: int = 0
    timestamp_ms: int = 0
    """The Kafka timestamp of the source message."""
    original_base64: str = ""

    def key(self) -> str:
        """Source position: topic-partition-offset-index."""
        return f"{self.topic}-{self.partition}-{self.offset}-{self.index}"

    def original(self) -> bytes:
        """The original bytes, at most ORIGINAL_BYTES_MAX of them."""
        return base64.b64decode(self.original_base64)


def encode_original(original: bytes) -> str:
    """The original bytes, cut and in base64 for JSON."""
    return base64.b64encode(original[:ORIGINAL_BYTES_MAX]).decode("ascii")


_decoder = msgspec.json.Decoder(DeadLetter)


def encode_dead_letter(letter: DeadLetter) -> bytes:
    """The record value."""
    return msgspec.json.encode(letter)


def decode_dead_letter(value: bytes) -> DeadLetter:
    """Decode one record value.

    Raises:
        msgspec.MsgspecError: not a dead letter.
    """
    return _decoder.decode(value)
