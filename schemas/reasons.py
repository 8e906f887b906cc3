"""Reason codes of bad input: a closed list, the same in dead letters, metrics and documentation."""

from __future__ import annotations

from enum import StrEnum


class RejectReason(StrEnum):
    """Why an event or message was not counted."""

    MALFORMED_JSON = "malformed_json"
    """Not JSON, or not an object."""
    WRONG_TYPE = "wrong_type"
    """A field has the wrong type or is out of its range."""
    MISSING_FIELD = "missing_field"
    NEGATIVE_QUANTITY = "negative_quantity"
    """Allowed only in a correction (`corrects_id`)."""
    PART_EXCEEDS_WHOLE = "part_exceeds_whole"
    """Cached tokens above input tokens, or reasoning tokens above output tokens."""
    INVALID_IDENTIFIER = "invalid_identifier"
    """An organisation, department, project, user or key that is not valid in a scope."""
    INVALID_TAGS = "invalid_tags"
    FUTURE_TIME = "future_time"
    ANCIENT_TIME = "ancient_time"
    """Before 2020: a unit mistake, not an old event."""
    OVERSIZE_BATCH = "oversize_batch"
    OVERSIZE_MESSAGE = "oversize_message"
    EMPTY_BATCH = "empty_batch"
    TOMBSTONE = "tombstone"
    """A record without a value."""
    UNKNOWN_ENVELOPE = "unknown_envelope"
    """A CloudEvent of another type, or of an unsupported spec version."""
    CONFLICT = "conflict"
    """Same id as a counted event, other body."""
    LANE_RESTARTED = "lane_restarted"
    """A lane's sequence went back with events never seen: two processes share a lane id."""
    NOT_STORABLE = "not_storable"
    """Refused by ClickHouse, or no record of its topic; reported by the sink. The streams counted such
    an event, so reconciliation shows it."""


class Notice(StrEnum):
    """An irregularity of input that was handled; counted in metrics, never a dead letter."""

    DUPLICATE_EVENT = "duplicate_event"
    """Same id and same body as a counted event: not counted again."""
    RESENT_BATCH = "resent_batch"
    """A batch whose sequence was already applied."""
    REPLAYED_MESSAGE = "replayed_message"
    """A source offset that was already durable (after a crash)."""
    LANE_GAP = "lane_gap"
    """A lane skipped a sequence number: batches are missing."""
    UNKNOWN_LANE = "unknown_lane"
    """A lane first seen with a sequence above 1: its state was dropped or its start expired."""
    UNPRICED = "unpriced"
    UNASSIGNED = "unassigned"
    LATE = "late"
    """Event time in a window that had ended; counted in its own window."""


RETRACTED = frozenset({RejectReason.CONFLICT, RejectReason.LANE_RESTARTED})
"""Reasons that only the streams can find: the sink stored such a row and retracts it when the
dead letter arrives. Every other reason is found by the shared decoder, on both paths alike."""
