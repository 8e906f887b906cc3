"""Every private part of kafka-python that Meterline touches, each with its symptom and its test.

kafka-python is pinned to one minor release for this file: each release is tried with these tests.

| patch               | what happens without it, kafka-python 3.0.12                             |
|---------------------|--------------------------------------------------------------------------|
| ClosingSocket       | a failed connect leaks its socket: a process that retries runs out       |
| WaitingClient       | the sender spins while a broker is busy: half a core at 150 messages/s   |
| ask_for_ids_again   | an idempotent producer whose batch expired never sends again             |
| end_sender          | close with the broker away leaves the driver's thread running            |
| finish_joins        | a member that polls briefly never gets partitions that a topic has grown |
| event_loop          | a commit in a rebalance callback waits for itself                        |
| topic_id            | a topic that was made again is read from a position of the lost one      |

Symptoms are provoked in `tests/contract` (on real brokers) and `tests/unit/backends`; the tests
named `*_upstream_*` there use the bare driver and fail when it no longer needs the patch.
"""

from __future__ import annotations

from typing import Any

from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket
from kafka.producer.transaction_manager import TransactionState
from typing_extensions import override

# A broker that was busy, or not reached, is asked again after this, should nothing wake the driver
# before: an answer and a new connection do.
BUSY_WAIT_MS = 100.0


class ClosingSocket(KafkaNetSocket):  # type: ignore[misc] # the driver is untyped
    """Closes the socket of a failed connection attempt.

    The driver leaves it to the garbage collector: with a broker away, a process that tries again
    every second would run out of file descriptors. The scheme is the driver's way to choose a
    kind of socket.
    """

    SCHEMES = ("meterline-direct",)

    @override
    async def sock_connect(
        self, net: Any, sock: Any, sockaddr: Any, timeout_at: float | None = None
    ) -> Any:
        """Connect, and close the socket if that fails."""
        try:
            return await super().sock_connect(net, sock, sockaddr, timeout_at=timeout_at)
        except BaseException:
            sock.close()
            raise


class WaitingClient(KafkaNetClient):  # type: ignore[misc] # the driver is untyped
    """Says how long the driver's sender has to wait for a broker that takes no request now.

    The driver says 0 of a broker that is connected but has as many requests under way as it may,
    and of one it connects to, and gives seconds where the sender wants milliseconds. So the sender
    asked again and again: half a core of a relay at 150 messages a second.
    """

    @override
    def connection_delay(self, node_id: Any) -> float:
        """Milliseconds to wait for a broker that takes no further request now."""
        if node_id in self._manager._conns:
            return BUSY_WAIT_MS
        return float(super().connection_delay(node_id)) * 1000


def ask_for_ids_again(producer: Any) -> None:
    """Let an idempotent driver get a new producer id after it gave up its own.

    It gives up its id when a batch that was sent expires unanswered, as it does when a broker dies
    and stays away for the delivery time. The driver then forgets to go back to the state in which
    it asks for one (Apache's own client does, KAFKA-7737): it would wait indefinitely, answer
    nothing more, and only a new process would send again.
    """
    manager = producer._transaction_manager
    if manager is None:  # not idempotent
        return
    give_up = manager.reset_producer_id

    def reset_producer_id() -> None:
        with manager._lock:
            give_up()
            manager._current_state = TransactionState.UNINITIALIZED

    manager.reset_producer_id = reset_producer_id


def end_sender(producer: Any, timeout_seconds: float) -> None:
    """Fail what is unsent and end the driver's thread.

    The driver's own close gives up when its flush does, and leaves the thread running.
    """
    sender = producer._sender
    sender.force_close()
    sender.join(timeout_seconds)


def finish_joins(consumer: Any) -> None:
    """Let the driver remember that it is joining, from one poll to the next.

    When a topic's partitions became known after the group was joined, the driver joins again because
    what it assigned differs from what it knows. A poll that is shorter than the joining leaves it
    under way; meanwhile the driver notes the new assignment, finds nothing that differs any more in
    the next poll, and never takes it: the member reads nothing, sends no heartbeat, and is removed
    from the group.
    """
    coordinator = consumer._coordinator
    differs = coordinator.need_rejoin

    def need_rejoin() -> bool:
        needed = bool(differs())
        if needed:
            # Reset by the driver when it has the assignment.
            coordinator.rejoin_needed = True
        return needed

    coordinator.need_rejoin = need_rejoin


def event_loop(consumer: Any) -> Any:
    """The driver's loop, to wake it from another thread.

    The driver runs rebalance listeners on this loop, which also sends heartbeats and commits: a
    callback that commits has to run elsewhere, and its end has to reach the loop.
    """
    return consumer._net


def topic_id(consumer: Any, topic: str) -> Any:
    """The id of a topic as the cluster's metadata names it now; None where the broker has no ids.

    The driver keeps it and gives no public way to it. A topic that was deleted and made again has
    another id, and a position in the lost log means nothing in the new one.
    """
    return consumer._client.cluster.topic_id(topic)
