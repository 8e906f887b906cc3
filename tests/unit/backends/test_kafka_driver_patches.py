"""What kafka-python does by itself, and what `_driver_patches` makes of it.

Tests named `*_upstream_*` use the bare driver and fail when it no longer needs the patch.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from kafka import errors as driver
from kafka.consumer.subscription_state import SubscriptionState
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket
from kafka.producer.transaction_manager import TransactionManager

from meterline.backends.kafka._driver_patches import (
    BUSY_WAIT_MS,
    ClosingSocket,
    WaitingClient,
    ask_for_ids_again,
    finish_joins,
)

BACKOFF_MS = 2_000


class Net:
    """The part of the driver's loop that a connecting socket needs."""

    async def wait_write(self, sock: socket.socket, **_: object) -> None:
        """Wait until the attempt is decided."""
        select.select([], [sock], [], 5)


class Holder:
    """A driver client of which a patch uses one private part."""

    def __init__(self, **parts: object) -> None:
        """Hold the parts under their names."""
        self.__dict__.update(parts)


@pytest.fixture(name="closed_port")
def fixture_closed_port() -> Iterator[tuple[str, int]]:
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()


@pytest.fixture(name="silent_port")
def fixture_silent_port() -> Iterator[tuple[str, int]]:
    """An address where connections are accepted and never answered."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(4)
        yield listening.getsockname()


def run(work: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine that waits for nothing but `Net`."""
    with pytest.raises(StopIteration):
        work.send(None)


def failed_attempt(proxy_url: str | None, address: tuple[str, int]) -> socket.socket:
    """The socket of an attempt to connect that was refused."""
    kind = KafkaNetSocket(proxy_url)
    sock = socket.socket()
    sock.setblocking(False)
    with pytest.raises(driver.KafkaConnectionError, match=errno.errorcode[errno.ECONNREFUSED]):
        run(kind.sock_connect(Net(), sock, address))
    return sock


def test_upstream_leaves_the_socket_of_a_failed_attempt_open(closed_port: tuple[str, int]) -> None:
    """The bare driver does not close it: else drop `ClosingSocket`."""
    with failed_attempt(None, closed_port) as sock:
        assert sock.fileno() >= 0


def test_the_socket_of_a_failed_attempt_is_closed(closed_port: tuple[str, int]) -> None:
    """A process that retries while the broker is away holds no more descriptors than before."""
    sock = failed_attempt(f"{ClosingSocket.SCHEMES[0]}://", closed_port)
    assert sock.fileno() < 0


def delay_while_connecting(kind: type[Any], address: tuple[str, int]) -> float:
    """What the sender is answered of a broker that is being connected to."""
    client = kind(bootstrap_servers=[f"{address[0]}:{address[1]}"])
    try:
        node = client.cluster.bootstrap_brokers()[0].node_id
        client.maybe_connect(node)
        delay = float(client.connection_delay(node))
        # An attempt that is closed under way would leave its socket open.
        client._net.poll(timeout_ms=50)
        return delay
    finally:
        client.close()


def delay_after_a_failure(kind: type[Any], address: tuple[str, int]) -> float:
    """What the sender is answered of a broker that refused a connection."""
    client = kind(
        bootstrap_servers=[f"{address[0]}:{address[1]}"],
        proxy_url=f"{ClosingSocket.SCHEMES[0]}://",
        reconnect_backoff_ms=BACKOFF_MS,
        reconnect_backoff_max_ms=BACKOFF_MS,
    )
    try:
        node = client.cluster.bootstrap_brokers()[0].node_id
        client.maybe_connect(node)
        for _ in range(100):
            if not client._manager._conns:
                break
            client._net.poll(timeout_ms=20)
        return float(client.connection_delay(node))
    finally:
        client.close()


def test_upstream_has_the_sender_ask_again_at_once(silent_port: tuple[str, int]) -> None:
    """The bare driver says 0 of a broker that takes no request yet: else drop `WaitingClient`."""
    assert delay_while_connecting(KafkaNetClient, silent_port) == 0


def test_the_sender_waits_for_a_broker_that_takes_no_request_yet(
    silent_port: tuple[str, int],
) -> None:
    """It is asked again after a bounded time and not at once, which would use a processor."""
    assert delay_while_connecting(WaitingClient, silent_port) == BUSY_WAIT_MS


def test_upstream_gives_seconds_where_milliseconds_are_wanted(closed_port: tuple[str, int]) -> None:
    """The bare driver's two seconds are 2, not 2,000: else drop `WaitingClient`."""
    assert 0 < delay_after_a_failure(KafkaNetClient, closed_port) < 10


def test_the_sender_waits_out_the_back_off_of_a_broker_that_refused(
    closed_port: tuple[str, int],
) -> None:
    """The wait is in milliseconds and no longer than the back-off with its jitter."""
    delay = delay_after_a_failure(WaitingClient, closed_port)
    assert BACKOFF_MS / 4 < delay < BACKOFF_MS * 2


def id_requests_after_a_loss(*, patched: bool) -> int:
    """How often a driver asked for a producer id that lost the one it had."""
    manager = TransactionManager()
    if patched:
        ask_for_ids_again(Holder(_transaction_manager=manager))
    manager.init_producer_id()
    manager.reset_producer_id()
    manager.init_producer_id()
    return len(manager._pending_requests)


def test_upstream_never_asks_for_another_producer_id() -> None:
    """The bare driver asks once and waits without end: else drop `ask_for_ids_again`."""
    assert id_requests_after_a_loss(patched=False) == 1


def test_a_lost_producer_id_is_asked_for_again() -> None:
    """A producer that gave up its id asks for another, so that it sends again."""
    assert id_requests_after_a_loss(patched=True) == 2


def test_a_producer_without_ids_is_left_as_it_is() -> None:
    """Without idempotence there is no id to ask for."""
    ask_for_ids_again(Holder(_transaction_manager=None))


def still_joins_after_a_short_poll(*, patched: bool) -> bool:
    """Whether a join that one poll began is finished by the next, after partitions were added."""
    client = KafkaNetClient(bootstrap_servers=["127.0.0.1:1"])
    try:
        subscription = SubscriptionState()
        subscription.subscribe(topics=["t"])
        coordinator = ConsumerCoordinator(client, subscription, group_id="g", metrics=None)
        if patched:
            finish_joins(Holder(_coordinator=coordinator))
        # Joined, and then the topic grew: what was assigned differs from what is known.
        coordinator.rejoin_needed = False
        coordinator._joined_subscription = subscription.subscription
        coordinator._assignment_snapshot, coordinator._metadata_snapshot = {"t": 1}, {"t": 2}
        assert coordinator.need_rejoin()
        # The join is under way: it notes the new assignment, and the poll ends.
        coordinator._assignment_snapshot = {"t": 2}
        return bool(coordinator.need_rejoin())
    finally:
        client.close()


def test_upstream_forgets_a_join_that_is_longer_than_a_poll() -> None:
    """The bare driver never takes that assignment: else drop `finish_joins`."""
    assert not still_joins_after_a_short_poll(patched=False)


def test_a_join_that_is_longer_than_a_poll_is_finished() -> None:
    """The next poll goes on with it, until the driver has the assignment."""
    assert still_joins_after_a_short_poll(patched=True)
