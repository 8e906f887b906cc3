"""The Kafka client's error tree: every error of the driver is mapped, and says what to do."""

from __future__ import annotations

import inspect

import pytest
from kafka import errors as driver
from kafka.consumer.fetcher import RecordTooLargeError

from meterline.backends.kafka.config import KafkaConfig
from meterline.backends.kafka.error_mapping import (
    ERROR_TEXT_LENGTH_MAX,
    RULES,
    client_error,
    mapped,
)
from meterline.backends.kafka.errors import (
    BrokerUnavailableError,
    KafkaClientError,
    KafkaFatalError,
    MessageRefusedError,
    RebalancedError,
)

DRIVER_ERRORS = sorted(
    # A set: some classes have an old name as well.
    {
        kind
        for _, kind in inspect.getmembers(driver, inspect.isclass)
        if issubclass(kind, driver.KafkaError)
    }
    | {RecordTooLargeError},
    key=lambda kind: str(kind.__name__),
)


def _instance(kind: type[Exception]) -> Exception:
    return kind({}) if kind is driver.LogTruncationError else kind()


@pytest.mark.parametrize("kind", DRIVER_ERRORS, ids=lambda kind: str(kind.__name__))
def test_every_driver_error_is_mapped_by_name_or_by_its_own_word(kind: type[Exception]) -> None:
    """No error class of the driver falls through to the rule for unknown errors."""
    assert kind.__name__ in RULES or getattr(kind, "retriable", False)
    assert type(client_error(_instance(kind), "sending")) in (
        BrokerUnavailableError,
        MessageRefusedError,
        RebalancedError,
        KafkaFatalError,
    )


def test_every_rule_names_an_error_that_the_driver_has() -> None:
    """A name in the table that the driver does not know is a spelling mistake."""
    assert set(RULES) <= {kind.__name__ for kind in DRIVER_ERRORS}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (driver.KafkaTimeoutError(), BrokerUnavailableError),
        (driver.NotLeaderForPartitionError(), BrokerUnavailableError),
        (driver.KafkaConnectionError(), BrokerUnavailableError),
        (ConnectionRefusedError("refused"), BrokerUnavailableError),
        (driver.MessageSizeTooLargeError(), MessageRefusedError),
        (ValueError("Unrecognized partition 9"), MessageRefusedError),
        (driver.CommitFailedError(), RebalancedError),
        (driver.TopicAuthorizationFailedError(), KafkaFatalError),
        (driver.ProducerFencedError(), KafkaFatalError),
        (driver.UnknownTopicOrPartitionError(), KafkaFatalError),
        (driver.for_code(9_999)(), BrokerUnavailableError),
        (RuntimeError("NetworkSelector closed!"), KafkaFatalError),
        (type("NewKafkaError", (driver.KafkaError,), {})("?"), KafkaFatalError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
def test_an_error_becomes_what_the_caller_can_do(
    error: Exception, expected: type[KafkaClientError]
) -> None:
    """Errors that pass are for a retry, those of the message for a dead letter, others stop."""
    assert type(client_error(error, "sending to usage.events")) is expected


def test_the_message_is_one_short_line_that_says_what_to_do() -> None:
    """Whatever the driver quotes, the message stays one line with the advice at its end."""
    error = client_error(driver.SaslAuthenticationFailedError("a\nb" * 1000), "connecting")
    assert "\n" not in str(error)
    assert len(str(error)) < ERROR_TEXT_LENGTH_MAX + 150
    assert str(error).endswith("check the client's security settings and its ACLs on the broker")


def test_a_mapped_block_keeps_the_cause_and_passes_client_errors_through() -> None:
    """The driver's error is the cause, and an error that is ours already is not wrapped again."""
    cause = driver.RequestTimedOutError()
    with pytest.raises(BrokerUnavailableError) as caught, mapped("reading"):
        raise cause
    assert caught.value.__cause__ is cause
    own = KafkaFatalError("stop")
    with pytest.raises(KafkaFatalError) as passed, mapped("reading"):
        raise own
    assert passed.value is own


def test_secrets_of_the_security_settings_are_never_shown() -> None:
    """The repr of the settings names the security settings without their values."""
    config = KafkaConfig("a:1", security={"sasl_plain_password": "hunter2"})
    assert "hunter2" not in repr(config)
    assert "sasl_plain_password" in repr(config)
