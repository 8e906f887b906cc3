"""Pure: the hash chain over administrative actions, and daily Merkle roots of it.

    row_hash(n) = SHA-256(canonical JSON of action n)
    hash(n)     = SHA-256(hash(n - 1) || row_hash(n)),  hash(0) = 32 zero bytes

Canonical JSON is that of RFC 8785 for what an action holds (texts and integers): keys in order, no
blanks, UTF-8. A day's Merkle root is that of RFC 9162 over the day's row hashes: one line a day,
stored where an administrator of the database cannot change it, proves every action of the day.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from meterline.schemas.periods import DAY_MS

GENESIS = "0" * 64


class AuditAction(NamedTuple):
    """A row of audit_log."""

    version: int
    """Place in the topic: the order of the chain."""
    id: str
    at_ms: int
    actor: str
    action: str
    object_id: str
    reason: str
    before: str
    after: str


class ChainLink(NamedTuple):
    """A row of audit_chain."""

    seq: int
    version: int
    id: str
    day: int
    """UTC days since 1970."""
    row_hash: str
    hash: str


class BreakKind(StrEnum):
    """How a chain can be broken."""

    CHANGED = "changed"
    """The action is not the one that was sealed."""
    MISSING = "missing"
    """A sealed action is not in the audit log."""
    INSERTED = "inserted"
    """An action precedes sealed ones and was never sealed."""
    RELINKED = "relinked"
    """The chain's own rows were changed: a hash does not follow from the one before."""
    ROOT = "root"
    """A day does not match its root that is stored elsewhere."""


class ChainBreak(NamedTuple):
    """The first break of a chain."""

    kind: BreakKind
    seq: int
    """Of the chain; 0 for a day's root."""
    id: str
    detail: str


class DayRoot(NamedTuple):
    """The Merkle root of one day's actions."""

    day: int
    actions: int
    root: str
    head: str
    """Hash of the day's last link."""


def row_hash(action: AuditAction) -> str:
    """SHA-256 of an action, in hexadecimal."""
    text = json.dumps(action._asdict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def link_hash(previous: str, row: str) -> str:
    """The next hash of the chain."""
    return hashlib.sha256(bytes.fromhex(previous) + bytes.fromhex(row)).hexdigest()


def extend(head: ChainLink | None, actions: Iterable[AuditAction]) -> Iterator[ChainLink]:
    """The links of actions that come after the head, in the order of their versions."""
    seq, before = (head.seq, head.hash) if head else (0, GENESIS)
    for action in actions:
        seq += 1
        row = row_hash(action)
        before = link_hash(before, row)
        yield ChainLink(seq, action.version, action.id, action.at_ms // DAY_MS, row, before)


def find_break(actions: Iterable[AuditAction], links: Iterable[ChainLink]) -> ChainBreak | None:
    """Compare the audit log with its chain; the first break, or None.

    Args:
        actions: all of audit_log, by version.
        links: all of audit_chain, by seq.
    """
    before = GENESIS
    waiting = iter(actions)
    for expected, each in enumerate(links, start=1):
        if each.seq != expected or link_hash(before, each.row_hash) != each.hash:
            detail = f"link {expected} does not follow from the one before it"
            return ChainBreak(BreakKind.RELINKED, expected, each.id, detail)
        before = each.hash
        found = next(waiting, None)
        if found is None or found.version > each.version:
            detail = f"action {each.id} was sealed and is not in the audit log"
            return ChainBreak(BreakKind.MISSING, each.seq, each.id, detail)
        if found.version < each.version:
            detail = f"action {found.id} stands before action {each.id} and was never sealed"
            return ChainBreak(BreakKind.INSERTED, each.seq, found.id, detail)
        if row_hash(found) != each.row_hash:
            detail = f"action {each.id} is not the one that was sealed"
            return ChainBreak(BreakKind.CHANGED, each.seq, each.id, detail)
    return None


def verify_roots(links: Sequence[ChainLink], kept: Sequence[DayRoot]) -> ChainBreak | None:
    """Compare the chain with roots that were kept elsewhere; the first day that differs.

    The newest kept day may have gone on since: of it only what was there is compared.
    """
    days = _by_day(links)
    for root in sorted(kept):
        found = days.get(root.day, [])[: root.actions]
        hashes = [each.row_hash for each in found]
        if len(found) < root.actions or merkle_root(hashes) != root.root:
            return ChainBreak(
                BreakKind.ROOT, 0, "", f"the actions of day {root.day} are not those kept"
            )
    return None


def roots(links: Iterable[ChainLink]) -> Iterator[DayRoot]:
    """The root of every day that has actions, in the order of days."""
    for day, found in sorted(_by_day(links).items()):
        yield DayRoot(day, len(found), merkle_root([one.row_hash for one in found]), found[-1].hash)


def _by_day(links: Iterable[ChainLink]) -> dict[int, list[ChainLink]]:
    # Not only neighbours: clocks of those who act differ, so days may alternate at midnight.
    days: dict[int, list[ChainLink]] = defaultdict(list)
    for each in links:
        days[each.day].append(each)
    return days


def merkle_root(row_hashes: Sequence[str]) -> str:
    """RFC 9162: leaves and nodes are hashed with different prefixes."""
    if not row_hashes:
        return hashlib.sha256(b"").hexdigest()
    return _subtree([bytes.fromhex(each) for each in row_hashes]).hex()


def _subtree(leaves: Sequence[bytes]) -> bytes:
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    # The largest power of two below the number of leaves.
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + _subtree(leaves[:half]) + _subtree(leaves[half:])).digest()
