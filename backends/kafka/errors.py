"""The errors of the Kafka client; needs no driver.

KafkaClientError
├── BrokerUnavailableError   try again later: the broker is away, busy or electing a leader
├── MessageRefusedError      this message never goes through: drop it or write a dead letter
├── RebalancedError          the partitions belong to another member now: forget what was not
│                            committed and poll on; those records are delivered again
└── KafkaFatalError          no retry helps: the message says what the operator has to do
"""

from __future__ import annotations

from meterline.schemas.errors import MeterlineError


class KafkaClientError(MeterlineError):
    """Root of what the Kafka client raises; the message is one line."""


class BrokerUnavailableError(KafkaClientError):
    """Try again later."""


class MessageRefusedError(KafkaClientError):
    """Drop the message or make it a dead letter: the same bytes will be refused again."""


class RebalancedError(KafkaClientError):
    """Forget what is not committed and poll on: the group gave the partitions away."""


class KafkaFatalError(KafkaClientError):
    """Stop the process; the message says what the operator has to do."""
