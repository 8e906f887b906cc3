"""Settings that every client of the driver shares, and starting one without leaving a mess."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from kafka import errors as driver
from kafka.net.compat import KafkaNetClient

from backends.kafka.config import KafkaConfig
from backends.kafka.errors import BrokerUnavailable, Stop, mapped

# How long a start waits for the first broker: a restarting broker needs about this long, and a
# person who mistyped an address should not wait longer.
BOOTSTRAP_SECONDS_MAX = 10.0
# One request to a live broker takes milliseconds; longer means that the broker is gone.
REQUEST_TIMEOUT_MS = 10_000
# After a broker's restart clients should be back within this, not after the driver's 30 s.
RECONNECT_BACKOFF_MS_MAX = 1_000
# New partitions of a grown topic are seen after at most this.
METADATA_AGE_MS_MAX = 30_000

_SECURITY_PREFIXES = ("sasl_", "ssl_")
_T = TypeVar("_T")


def common_options(config: KafkaConfig) -> dict[str, Any]:
    """The driver's settings that hold for producer, consumer and admin."""
    if not config.addresses:
        message = "no Kafka address: set bootstrap to host:port"
        raise Stop(message)
    return {
        "bootstrap_servers": config.addresses,
        "client_id": config.client_id,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "reconnect_backoff_max_ms": RECONNECT_BACKOFF_MS_MAX,
        "metadata_max_age_ms": METADATA_AGE_MS_MAX,
        **_security_options(config),
    }


def _security_options(config: KafkaConfig) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, text in config.security.items():
        if name != "security_protocol" and not name.startswith(_SECURITY_PREFIXES):
            # Only the name: the driver would quote the value, which may be a password.
            message = (
                f"{name!r} is no Kafka security setting; write security_protocol, sasl_* or ssl_*"
            )
            raise Stop(message)
        options[name] = text
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = options["ssl_check_hostname"].lower() == "true"
    return options


def start_client(
    factory: Callable[..., _T],
    config: KafkaConfig,
    options: dict[str, Any],
    *,
    bootstrap_seconds: float = BOOTSTRAP_SECONDS_MAX,
) -> _T:
    """Make a driver client; when no broker answers in time, close what it had opened.

    Raises:
        BrokerUnavailable: no broker answered within `bootstrap_seconds`.
        Stop: the settings cannot work.
    """
    opened: list[Any] = []

    def network(**settings: Any) -> Any:
        client = KafkaNetClient(**settings)
        opened.append(client)
        return client

    settings = {
        **options,
        "bootstrap_timeout_ms": int(bootstrap_seconds * 1000),
        "kafka_client": network,
    }
    try:
        with mapped("starting a Kafka client"):
            try:
                return factory(**settings)
            except driver.KafkaTimeoutError as error:
                message = (
                    f"no Kafka broker answers at {config.bootstrap} within "
                    f"{bootstrap_seconds:g} s: start the broker, or correct the address or the "
                    f"security settings"
                )
                raise BrokerUnavailable(message) from error
    except BaseException:
        # The driver leaves its sockets and its thread behind when its constructor fails.
        for client in opened:
            client.close()
        raise
