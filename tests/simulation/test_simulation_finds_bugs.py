"""The simulator is worth what it finds: each test breaks one safeguard, and it must notice."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from meterline.alerting.core import desired_state as desired
from meterline.alerting.core import engine, restore, totals
from meterline.alerting.core.restore import RestoredState
from meterline.alerting.core.state import ScopeState
from meterline.alerting.core.takeover import ForeignAlerts
from meterline.alerting.rules import thresholds
from meterline.relay.gate import Gate
from meterline.schemas.throttle import Applied, ThrottleCommand
from meterline.streams.core import changelog, identity, ledger
from meterline.streams.core.changelog import Replica
from meterline.streams.core.entries import LedgerEntry, add_to_entry, decode_entry
from meterline.streams.core.lanes import Lanes, SequenceCheck
from meterline.streams.core.ledger import PartitionLedger
from tests.simulation.__main__ import play_some
from tests.simulation.ledger_audit import LedgerAudit
from tests.simulation.usage_side import Worker

SEEDS_MAX = 1_000
NEAR = {"_lanes_ignored": 300, "_future_ids_believed": 170, "_commands_forgotten": 160}
NEAR |= {"_gate_ends_leases_early": 1_225, "_old_snapshots_believed": 275}
NEAR |= {"_others_alerts_not_heard": 5_242}
"""Where to begin looking, so that a rare bug costs little time."""
"""Some seconds' worth: a safeguard whose loss takes longer to show is not guarded in `make test`."""

Patch = pytest.MonkeyPatch


def _tags_ignored(patch: Patch) -> None:
    """A replayed message is added to entries that have it already."""

    def add(self: PartitionLedger, window: Any, sums: Any) -> None:
        for scope, cell in sums.items():
            key = ((scope, self.partition), window)
            entry = self._entries.get(key)
            if entry is None:
                self._entries[key] = LedgerEntry(0, self.offset, window[1], *cell)
            else:
                add_to_entry(entry, cell)
                entry.offset = self.offset
            self._dirty[key] = None

    patch.setattr(PartitionLedger, "_add", add)


def _lanes_ignored(patch: Patch) -> None:
    """A re-sent batch counts as a new one, once its ids are forgotten."""
    patch.setattr(Lanes, "observe", lambda *_: SequenceCheck.NEXT)


def _ids_ignored(patch: Patch) -> None:
    """Every event is new."""
    numbers = itertools.count()
    fresh = lambda _: (next(numbers).to_bytes(16, "big"), bytes(8))  # noqa: E731
    patch.setattr(ledger, "digests", fresh)


def _late_batches_refused(patch: Patch) -> None:
    """A batch that fills a gap is taken for a repetition."""
    patch.setattr("meterline.streams.core.lanes._fill", lambda *_: False)


def _replay_not_slow(patch: Patch) -> None:
    """After a torn flush messages are still rolled up together."""
    never = property(lambda _: -1, lambda *_: None)
    patch.setattr(PartitionLedger, "_replay_until", never, raising=False)


def _state_before_entries(patch: Patch) -> None:
    """The state record says that entries are there which are not."""
    patch.setattr(Worker, "state_first", True)


def _last_record_wins(patch: Patch) -> None:
    """Recovery believes a stopped worker's late write."""
    patch.setattr(changelog, "_older", lambda *_: False)

    def load(self: Replica, record: Any, scope: str, kind: str, start_ms: int) -> None:
        if record.value:
            entry = decode_entry(record.value)
            self.entries[(scope, record.partition), (start_ms, entry.end_ms)] = entry

    patch.setattr(Replica, "_load_entry", load)


def _nothing_rewritten(patch: Patch) -> None:
    """What recovery found out of order, or had not flushed, is not written again."""
    patch.setattr(PartitionLedger, "rewrite", lambda *_: None)


def _future_ids_believed(patch: Patch) -> None:
    """Recovery takes the ids of a torn flush for counted."""
    original = identity.durable_rows
    patch.setattr(
        changelog,
        "durable_rows",
        lambda records, epoch, state_epoch, _: original(records, epoch, state_epoch, 2**60),
    )


def _ring_too_short(patch: Patch) -> None:
    """Slots of ids are used again while they are needed."""
    patch.setattr(ledger, "slots_for", lambda *_: 2)


def _gate_takes_anything(patch: Patch) -> None:
    """A gate believes the last command instead of the newest."""

    def apply(self: Gate, command: ThrottleCommand, now_ms: int) -> Applied:
        with self._lock:
            state = self._state_of(command.scope)
            state.version = command.version
            state.command = command
            self._refresh(state, now_ms)
        return Applied.ACCEPTED

    patch.setattr(Gate, "apply", apply)


def _gate_ends_leases_early(patch: Patch) -> None:
    """A relay whose clock is ahead ends live leases."""
    patch.setattr("meterline.relay.core.effective_limits.CLOCK_SKEW_MS", 0)
    patch.setattr(
        "meterline.relay.core.effective_limits.lease_ended",
        lambda command, now: now >= command.expires_at_ms,
    )
    patch.setattr(
        "meterline.relay.gate.lease_ended", lambda command, now: now >= command.expires_at_ms
    )


def _alerts_forgotten(patch: Patch) -> None:
    """A restarted controller does not know what was notified."""
    patch.setattr(RestoredState, "add_alert", lambda *_: None)


def _commands_forgotten(patch: Patch) -> None:
    """A restarted controller does not know what it commanded."""
    patch.setattr(RestoredState, "add_command", lambda *_: None)


def _epoch_not_raised(patch: Patch) -> None:
    """Each controller begins where the first began."""
    patch.setattr(restore, "next_epoch", lambda *_: 1)


def _not_fenced(patch: Patch) -> None:
    """A controller that was replaced continues."""
    patch.setattr(engine, "_observe_command", lambda *_: [])


def _others_alerts_not_heard(patch: Patch) -> None:
    """What a replaced controller still publishes is ignored."""
    patch.setattr(ForeignAlerts, "read", lambda *_: False)


def _leases_not_renewed(patch: Patch) -> None:
    """A live controller lets its leases end."""
    patch.setattr(desired, "renew_at_ms", lambda *_: 0)


def _old_snapshots_believed(patch: Patch) -> None:
    """Alerting lets the last snapshot win instead of the newest."""
    patch.setattr(totals, "newer", lambda *_: True)


def _threshold_missed(patch: Patch) -> None:
    """A threshold is crossed only above it, not at it or just above."""
    patch.setattr(
        thresholds,
        "reached",
        lambda observed, limit, percent: observed * 100 >= (percent + 5) * limit,
    )


def _one_shard_only(patch: Patch) -> None:
    """Alerting forgets the shards but one."""
    original = totals.SpendTotals.apply

    def apply(self: Any, snapshot: Any) -> Any:
        return None if snapshot.key.shard == "1" else original(self, snapshot)

    patch.setattr(totals.SpendTotals, "apply", apply)


def _orders_not_heeded(patch: Patch) -> None:
    """What a person sets by hand changes nothing."""
    patch.setattr(
        engine,
        "set_manual",
        lambda state, item: state.scopes.setdefault(item.scope, ScopeState()),
    )


def _orders_forgotten(patch: Patch) -> None:
    """A restarted controller releases what a person has blocked."""
    patch.setattr(restore, "_recall_manual", lambda *_: None)


def _committed_before_durable(patch: Patch) -> None:
    """Offsets are committed as soon as messages are read."""
    original = Worker.apply

    def apply(self: Worker, partition: int, count: int) -> int:
        done = original(self, partition, count)
        self.logs.commit(partition, self.next[partition])
        return done

    patch.setattr(Worker, "apply", apply)


BUGS: tuple[Callable[[Patch], None], ...] = (
    _tags_ignored,
    _lanes_ignored,
    _ids_ignored,
    _late_batches_refused,
    _replay_not_slow,
    _state_before_entries,
    _last_record_wins,
    _nothing_rewritten,
    _future_ids_believed,
    _ring_too_short,
    _committed_before_durable,
    _gate_takes_anything,
    _gate_ends_leases_early,
    _orders_not_heeded,
    _orders_forgotten,
    _alerts_forgotten,
    _commands_forgotten,
    _epoch_not_raised,
    _not_fenced,
    _others_alerts_not_heard,
    _leases_not_renewed,
    _old_snapshots_believed,
    _threshold_missed,
    _one_shard_only,
)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__.strip("_"))
def test_a_broken_safeguard_is_found(bug: Callable[[Patch], None]) -> None:
    """The simulator finds this bug among its first seeds."""
    with pytest.MonkeyPatch.context() as patch:
        bug(patch)
        tally = play_some(NEAR.get(bug.__name__, 0), SEEDS_MAX)
    assert tally.failure is not None, f"{bug.__doc__} Not noticed in {SEEDS_MAX} schedules."
    assert tally.failure[1].startswith("AuditError"), "found by the auditors, not by a crash"


def test_the_auditor_misses_no_event() -> None:
    """An auditor that expects one event more than was sent says so."""
    with pytest.MonkeyPatch.context() as patch:
        settled = LedgerAudit.settled

        def one_more(self: LedgerAudit, owed_now: set[str]) -> None:
            self.owed.add("request-0-1")
            settled(self, owed_now)

        patch.setattr(LedgerAudit, "settled", one_more)
        tally = play_some(0, 1)
    assert tally.failure is not None
    assert "never counted" in tally.failure[1]
