"""The door to kafka-python: producer, group consumer, log reader, admin.

Owns: the driver's settings, its bounds and the mapping of its errors.
Reads: topics.
Writes: topics.
Never: lets a type or an error of the driver out; never configures logging.
"""

from backends.kafka.admin import Admin, TopicAction, TopicChange
from backends.kafka.config import KafkaConfig, Record, TopicPartition, embedded_kafka
from backends.kafka.errors import (
    BrokerUnavailable,
    KafkaDoorError,
    MessageRefused,
    Rebalanced,
    Stop,
)
from backends.kafka.group import GroupConsumer
from backends.kafka.producer import Producer
from backends.kafka.reader import LogReader

__all__ = [
    "Admin",
    "BrokerUnavailable",
    "GroupConsumer",
    "KafkaConfig",
    "KafkaDoorError",
    "LogReader",
    "MessageRefused",
    "Producer",
    "Rebalanced",
    "Record",
    "Stop",
    "TopicAction",
    "TopicChange",
    "TopicPartition",
    "embedded_kafka",
]
