"""Settings that every client of the driver shares, and starting one that leaves nothing open when it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from kafka import KafkaProducer
from kafka import errors as driver
from kafka.net.compat import KafkaNetClient

from meterline.backends.kafka._driver_patches import ClosingSocket
from meterline.backends.kafka.config import KafkaConfig
from meterline.backends.kafka.error_mapping import mapped
from meterline.backends.kafka.errors import BrokerUnavailableError, KafkaFatalError

# One request to a live broker takes milliseconds; longer means that the broker is down.
REQUEST_TIMEOUT_MS = 10_000
# After a broker's restart clients should be back within this, not after the driver's 30 s.
RECONNECT_BACKOFF_MS_MAX = 1_000
# New partitions of a grown topic are seen after at most this.
METADATA_AGE_MS_MAX = 30_000

_SECURITY_PREFIXES = ("security_protocol", "sasl_", "ssl_")
_SECURITY_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_T = TypeVar("_T")


def common_options(config: KafkaConfig) -> dict[str, Any]:
    """The driver's settings that hold for producer, consumer and admin."""
    if not config.addresses:
        message = "no Kafka address: set bootstrap to host:port"
        raise KafkaFatalError(message)
    return {
        "bootstrap_servers": config.addresses,
        "client_id": config.client_id,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "reconnect_backoff_max_ms": RECONNECT_BACKOFF_MS_MAX,
        "metadata_max_age_ms": METADATA_AGE_MS_MAX,
        "proxy_url": f"{ClosingSocket.SCHEMES[0]}://",
        **_security_options(config),
    }


def _security_options(config: KafkaConfig) -> dict[str, Any]:
    options: dict[str, Any] = dict(config.security)
    for name in options:
        if name not in KafkaProducer.DEFAULT_CONFIG or not name.startswith(_SECURITY_PREFIXES):
            # Only the name: the driver would quote the value, which may be a password.
            message = (
                f"{name!r} is no Kafka security setting: write security_protocol, or one of the "
                f"client's sasl_* and ssl_* settings"
            )
            raise KafkaFatalError(message)
    if options.get("security_protocol", "PLAINTEXT") not in _SECURITY_PROTOCOLS:
        message = f"security_protocol must be one of {', '.join(_SECURITY_PROTOCOLS)}"
        raise KafkaFatalError(message)
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = options["ssl_check_hostname"].lower() == "true"
    return options


def start_client(
    factory: Callable[..., _T],
    config: KafkaConfig,
    options: dict[str, Any],
    network_class: type[Any] = KafkaNetClient,
) -> _T:
    """Make a driver client; when no broker answers in time, close what it had opened.

    `network_class` is the driver's own, or a subclass of it.

    Raises:
        BrokerUnavailableError: no broker answered within the settings' `bootstrap_seconds`.
        KafkaFatalError: the settings cannot work.
    """
    opened: list[Any] = []

    def network(**settings: Any) -> Any:
        client = network_class(**settings)
        opened.append(client)
        return client

    settings = {
        **options,
        "bootstrap_timeout_ms": int(config.bootstrap_seconds * 1000),
        "kafka_client": network,
    }
    try:
        with mapped("starting a Kafka client"):
            try:
                return factory(**settings)
            except driver.KafkaTimeoutError as error:
                message = (
                    f"no Kafka broker answers at {config.bootstrap} within "
                    f"{config.bootstrap_seconds:g} s: start the broker, or correct the address or the "
                    f"security settings"
                )
                raise BrokerUnavailableError(message) from error
    except BaseException:
        # The driver leaves its sockets and its thread behind when its constructor fails.
        for client in opened:
            client.close()
        raise
