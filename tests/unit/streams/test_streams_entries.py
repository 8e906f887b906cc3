"""Entries of the spend table: their place in the changelog."""

from __future__ import annotations

import pytest

from meterline.schemas.periods import Calendar
from meterline.schemas.spend import SnapshotKey, encode_key
from meterline.streams.core.entries import encode_entry_key, kind_of

SCOPES = ("organisation:acme", "department:acme/r&d", 'key:acme/a"b\\c', "user:acme/ünï-日本")


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("position", range(4))
def test_an_entry_is_written_under_its_snapshots_key(scope: str, position: int) -> None:
    """The key made of two remembered halves has the bytes of `encode_key`, as compaction needs."""
    found = Calendar("Europe/Berlin").windows(1_793_000_000_000)[position]
    window = (found.start_ms, found.end_ms)
    expected = encode_key(SnapshotKey(scope, kind_of(window).value, window[0], "7"))
    assert encode_entry_key(((scope, 7), window)) == expected
    assert encode_entry_key(((scope, 7), window)) == expected
