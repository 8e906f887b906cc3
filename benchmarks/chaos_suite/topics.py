"""Everything the topics hold at the end of a run, read once as an outsider reads it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from meterline.backends.kafka.config import KafkaConfig
from meterline.backends.kafka.reader import TopicReader
from meterline.schemas.alert import Alert, decode_alert
from meterline.schemas.dead_letter import DeadLetter, decode_dead_letter
from meterline.schemas.throttle import Applied, ThrottleCommand, decode_ack, decode_command
from meterline.schemas.topics import Topic

READ_SECONDS_MAX = 60.0
Position = tuple[int, int]
"""Partition and offset in usage.events."""


@dataclass
class Topics:
    """What was read."""

    broken: dict[Position, str] = field(default_factory=dict)
    """Where broken messages stand, with their ids (their keys)."""
    dead_letters: dict[str, DeadLetter] = field(default_factory=dict)
    """By key: a repeat after a crash has the same."""
    dead_letters_repeated: int = 0
    alerts: list[Alert] = field(default_factory=list)
    commands: dict[str, ThrottleCommand] = field(default_factory=dict)
    """The newest of each scope."""
    acknowledged: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """The newest version in force, by relay and scope."""


def read_topics(kafka: KafkaConfig, broken_prefix: str) -> Topics:
    """Read them to their ends."""
    found = Topics()
    names = (
        Topic.USAGE_EVENTS,
        Topic.DEAD_LETTERS,
        Topic.ALERTS,
        Topic.THROTTLE_COMMANDS,
        Topic.THROTTLE_ACKS,
    )
    with contextlib.closing(TopicReader(kafka, names)) as reader:
        for record in reader.read_to_end(READ_SECONDS_MAX):
            key = (record.key or b"").decode(errors="replace")
            if record.topic == Topic.USAGE_EVENTS:
                if key.startswith(broken_prefix):
                    found.broken[record.partition, record.offset] = key
                continue
            assert record.value is not None, f"a tombstone on {record.topic}"
            _take(found, record.topic, record.value)
    return found


def _take(found: Topics, topic: str, value: bytes) -> None:
    match topic:
        case Topic.DEAD_LETTERS:
            letter = decode_dead_letter(value)
            found.dead_letters_repeated += letter.key() in found.dead_letters
            found.dead_letters[letter.key()] = letter
        case Topic.ALERTS:
            found.alerts.append(decode_alert(value))
        case Topic.THROTTLE_COMMANDS:
            command = decode_command(value)
            known = found.commands.get(command.scope)
            if known is None or command.version > known.version:
                found.commands[command.scope] = command
        case Topic.THROTTLE_ACKS:
            ack = decode_ack(value)
            if ack.applied is Applied.ACCEPTED:
                place = (ack.relay, ack.scope)
                version = (ack.epoch, ack.seq)
                found.acknowledged[place] = max(version, found.acknowledged.get(place, version))
        case _:
            pass
