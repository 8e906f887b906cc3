"""The hash chain: whatever is done to the log afterwards is found."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterline.reports.audit.core.chain import (
    AuditAction,
    BreakKind,
    ChainLink,
    extend,
    find_break,
    merkle_root,
    roots,
    row_hash,
    verify_roots,
)
from meterline.schemas.periods import DAY_MS

ACTIONS = [
    AuditAction(
        number, f"a-{number}", number * DAY_MS // 3, "ana", "policy.changed", "o", "ü", "{}", ""
    )
    for number in range(1, 9)
]
LINKS = list(extend(None, ACTIONS))


def test_unbroken() -> None:
    """What was sealed in two goes is one chain, and it verifies; actions to come are no break."""
    first = list(extend(None, ACTIONS[:3]))
    assert [*first, *extend(first[-1], ACTIONS[3:])] == LINKS
    assert find_break(ACTIONS, LINKS) is None
    assert find_break(ACTIONS, LINKS[:5]) is None


@pytest.mark.parametrize("place", range(8))
@pytest.mark.parametrize(
    "field", ["id", "at_ms", "actor", "action", "object_id", "reason", "after"]
)
def test_change_is_found(place: int, field: str) -> None:
    """Any field of any action changed is found, at its place."""
    changed = list(ACTIONS)
    values = changed[place]._asdict() | {field: 1 if field == "at_ms" else "other"}
    changed[place] = AuditAction(**values)
    finding = find_break(changed, LINKS)
    assert finding is not None
    assert (finding.kind, finding.seq) == (BreakKind.CHANGED, place + 1)


@pytest.mark.parametrize("place", range(8))
def test_removal_is_found(place: int) -> None:
    """An action that is gone is missing at its place, the last one too."""
    finding = find_break(ACTIONS[:place] + ACTIONS[place + 1 :], LINKS)
    assert finding is not None
    assert (finding.kind, finding.seq) == (BreakKind.MISSING, place + 1)


def test_insertion_is_found() -> None:
    """An action slipped in between sealed ones is found before the one that follows."""
    apart = [each._replace(version=each.version * 10) for each in ACTIONS]
    slipped = apart[0]._replace(version=35, id="slipped")
    finding = find_break(sorted([*apart, slipped]), extend(None, apart))
    assert finding is not None
    assert (finding.kind, finding.seq, finding.id) == (BreakKind.INSERTED, 4, "slipped")


@pytest.mark.parametrize("field", ["row_hash", "hash", "seq"])
def test_changed_links_are_found(field: str) -> None:
    """The chain's own rows cannot be changed one by one."""
    links = list(LINKS)
    links[4] = ChainLink(**(links[4]._asdict() | {field: 99 if field == "seq" else "0" * 64}))
    finding = find_break(ACTIONS, links)
    assert finding is not None
    assert (finding.kind, finding.seq) == (BreakKind.RELINKED, 5)


def test_rewritten_history_is_found_by_kept_roots() -> None:
    """A rewrite of the log and its whole chain is found by one line kept elsewhere."""
    kept = list(roots(LINKS))
    forged_actions = [ACTIONS[0]._replace(actor="nobody"), *ACTIONS[1:]]
    forged = list(extend(None, forged_actions))
    assert find_break(forged_actions, forged) is None
    finding = verify_roots(forged, kept)
    assert finding is not None
    assert finding.kind is BreakKind.ROOT
    assert verify_roots(LINKS, kept) is None
    # A day that went on after its root was taken.
    assert verify_roots(LINKS, list(roots(LINKS[:4]))) is None


def test_merkle_root_of_rfc_9162() -> None:
    """Leaves and nodes as the RFC has them: three leaves make ((0, 1), 2)."""
    leaves = [bytes([number]) * 32 for number in range(3)]

    def sha(data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    a, b, c = (sha(b"\x00" + each) for each in leaves)
    expected = sha(b"\x01" + sha(b"\x01" + a + b) + c)
    assert merkle_root([each.hex() for each in leaves]) == expected.hex()


@given(st.lists(st.text(), min_size=7, max_size=7), st.lists(st.text(), min_size=7, max_size=7))
def test_different_actions_have_different_hashes(left: list[str], right: list[str]) -> None:
    """Two actions hash alike only if they are equal, wherever their texts are cut."""
    first = AuditAction(1, left[0], 1, *left[1:])
    second = AuditAction(1, right[0], 1, *right[1:])
    assert (row_hash(first) == row_hash(second)) == (first == second)


def test_empty_log() -> None:
    """A log without actions is an unbroken chain without links."""
    links: list[ChainLink] = []
    assert find_break([], links) is None
    assert list(roots(links)) == []
