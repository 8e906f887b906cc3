"""Dead letters of one message: a pure function, so that a replay writes the same bytes again."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from meterline.schemas.codec import UsageMessage
from meterline.schemas.dead_letter import DeadLetter, encode_original
from meterline.schemas.reasons import RejectReason


class MessageSource(NamedTuple):
    """One message and its position in the log, as its dead letters name it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    message: UsageMessage

    def rejects(self) -> list[DeadLetter]:
        """Dead letters of what the decoder refused."""
        return [
            self._dead_letter(
                reject.index, reject.reason, reject.detail, reject.event_id, reject.original
            )
            for reject in self.message.rejects
        ]

    def conflict(self, position: int) -> DeadLetter:
        """The dead letter of an event whose id was counted with another body."""
        detail = "an event of this id and another body was counted before"
        return self._dead_letter_of_event(position, RejectReason.CONFLICT, detail)

    def restarted(self, position: int) -> DeadLetter:
        """The dead letter of a new event under a sequence number that was used before."""
        detail = "new event in a sequence number of its lane that was used before"
        return self._dead_letter_of_event(position, RejectReason.LANE_RESTARTED, detail)

    def _dead_letter_of_event(self, position: int, reason: RejectReason, detail: str) -> DeadLetter:
        event = self.message.events[position]
        index = self.message.positions[position]
        return self._dead_letter(index, reason, detail, event.id, msgspec.json.encode(event))

    def _dead_letter(
        self, index: int, reason: RejectReason, detail: str, event_id: str, original: bytes
    ) -> DeadLetter:
        return DeadLetter(
            topic=self.topic,
            partition=self.partition,
            offset=self.offset,
            index=index,
            reason=reason,
            detail=detail,
            event_id=event_id,
            lane=self.message.lane,
            seq=self.message.seq,
            timestamp_ms=self.timestamp_ms,
            original_base64=encode_original(original),
        )
