"""The spend table: a Faust windowed table whose changelog is spend.snapshots.

Faust owns its place in the group (assignment, recovery, the memory store); the ledgers own its
content (`streams.core.changelog`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import faust
import structlog
from faust.types import TP, EventT
from typing_extensions import override

from meterline.streams.core.changelog import LedgerFactory, Replica
from meterline.streams.core.entries import EntryKey, LedgerEntry

log = structlog.get_logger()


class SpendTable(faust.Table):  # type: ignore[type-arg]
    """Entries of all partitions that this worker owns, and their ledgers."""

    def __init__(
        self, *args: Any, new_ledger: LedgerFactory, snapshot_topic: str, **options: Any
    ) -> None:
        """Take Faust's arguments, the factory of ledgers and the name of the changelog."""
        super().__init__(*args, **options)
        self.on_forget: Callable[[], None] = _nothing
        """Called together with the loss of all ledgers: what was not flushed is forgotten."""
        self._new_ledger = new_ledger
        self._snapshot_topic = snapshot_topic
        self._replica: Replica | None = None

    @override
    def info(self) -> Any:
        """The arguments of a clone."""
        more = {"new_ledger": self._new_ledger, "snapshot_topic": self._snapshot_topic}
        return {**super().info(), **more}

    @override
    def _changelog_topic_name(self) -> str:
        """The changelog is the product: the snapshots that alerting, sinks and status read."""
        return self._snapshot_topic

    @property
    def replica(self) -> Replica:
        """The merged changelog on the memory store's dictionary."""
        if self._replica is None:
            store: Any = self.data
            entries: dict[EntryKey, LedgerEntry] = store.data
            self._replica = Replica(entries, self._new_ledger)
        return self._replica

    @override
    def apply_changelog_batch(self, batch: Iterable[EventT[Any]]) -> None:
        """Faust's own recovery: the records that the bulk load left for it."""
        self.replica.load(event.message for event in batch)

    @override
    async def on_rebalance(
        self,
        assigned: set[TP],
        revoked: set[TP],
        newly_assigned: set[TP],
        generation_id: int = 0,
    ) -> None:
        """Drop the partitions that were revoked, and everything that is not durable."""
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)
        topic = self.changelog_topic_name
        self.replica.forget({tp.partition for tp in assigned if tp.topic == topic})
        # In the same step of the loop: a flush in between would find the one without the other.
        self.on_forget()

    @override
    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Build the ledgers of the assigned partitions.

        Not Faust's own: it would drop entries that it has not loaded itself.
        """
        partitions = {tp.partition for tp in active_tps}
        rewritten = self.replica.recover(partitions)
        log.info(
            "table.recovered",
            partitions=sorted(partitions),
            entries=len(self.replica.entries),
            rewritten=rewritten,
        )
        await self.call_recover_callbacks()


def _nothing() -> None:
    """No-op callback."""
