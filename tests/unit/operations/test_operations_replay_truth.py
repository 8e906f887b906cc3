"""The truth file: adds up, is written whole, and is refused when it was tampered with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meterline.operations.replay.truth import (
    RunFacts,
    Truth,
    TruthBuilder,
    TruthError,
    TruthSums,
    event_id,
    read_truth,
    write_truth,
)
from meterline.pricing.catalogue_reader import load_catalogue
from meterline.schemas.periods import Calendar, WindowKind, parse_rfc3339
from meterline.schemas.usage import UsageEvent

CATALOGUE = load_catalogue()
FACTS = RunFacts("r1", 7, 1, 2, complete=True, duplicates=0, late=0, malformed=0, invalid=0)
NOON = parse_rfc3339("2026-10-31T12:00:30Z")


def event(number: int, time_ms: int = NOON, **fields: Any) -> UsageEvent:
    named = {"department": "research", "project": "p", "user": "u", "key": "k", **fields}
    return UsageEvent(
        id=event_id("r1", number),
        time_ms=time_ms,
        organisation="acme",
        model="gpt-4.1",
        provider="openai",
        input_tokens=1_000,
        output_tokens=10,
        **named,
    )


def build(*events: UsageEvent, time_zone: str = "UTC") -> Truth:
    builder = TruthBuilder(CATALOGUE, Calendar(time_zone))
    for number, each in enumerate(events):
        builder.add(each, number)
    return builder.truth(FACTS)


def test_one_event_in_every_scope_and_window() -> None:
    """One event counts in five scopes and four windows with its exact cost."""
    truth = build(event(0))
    found = dict(truth.windows())
    assert len(found) == 20
    assert set(found.values()) == {TruthSums(2_080_000, 1_000, 10, 1)}
    starts = {key.kind: key.start_ms for key in found}
    assert starts[WindowKind.MINUTE] == parse_rfc3339("2026-10-31T12:00:00Z")
    assert starts[WindowKind.MONTH] == parse_rfc3339("2026-10-01T00:00:00Z")


def test_windows_in_the_billing_time_zone() -> None:
    """Days and months are those of the time zone, not of UTC."""
    late_evening = parse_rfc3339("2026-10-31T23:30:00Z")
    truth = build(event(0, late_evening), time_zone="Asia/Kolkata")
    starts = {key.kind: key.start_ms for key, _ in truth.windows()}
    assert starts[WindowKind.MONTH] == parse_rfc3339("2026-11-01T00:00:00+05:30")
    assert starts[WindowKind.HOUR] == parse_rfc3339("2026-11-01T05:00:00+05:30")


def test_an_event_without_department_is_unassigned() -> None:
    """An event without department, project and user counts for three scopes."""
    truth = build(event(0, department="", project="", user=""))
    assert set(truth.totals) == {"organisation:acme", "department:acme/unassigned", "key:acme/k"}


def test_unknown_models_are_counted_as_unpriced() -> None:
    """An event without a price counts with its tokens and no money."""
    sent = UsageEvent(
        id=event_id("r1", 0),
        time_ms=NOON,
        organisation="acme",
        key="k",
        model="nobody-knows",
        input_tokens=5,
    )
    truth = build(sent)
    assert truth.unpriced == 1
    assert truth.totals["key:acme/k"][WindowKind.DAY].popitem()[1] == TruthSums(0, 5, 0, 1)


def test_file_round_trip(tmp_path: Path) -> None:
    """What is written is read back the same, and nothing else is left in the directory."""
    truth = build(event(0), event(1, NOON + 60_000))
    path = tmp_path / "truth.json"
    write_truth(path, truth)
    assert read_truth(path) == truth
    assert list(tmp_path.iterdir()) == [path]


def test_gaps_in_numbers_are_kept() -> None:
    """Numbers of events that were not sent are not among the ids."""
    builder = TruthBuilder(CATALOGUE, Calendar())
    for number in (0, 1, 4):
        builder.add(event(number), number)
    truth = builder.truth(FACTS)
    assert truth.numbers == ((0, 1), (4, 4))
    assert truth.ids() == {"r1-0000000", "r1-0000001", "r1-0000004"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"events": 3}, "do not add up"),
        ({"numbers": [[0, 0], [5, 5]]}, "do not match their digest"),
        ({"format": 99}, "truth format 99"),
        ({"totals": 5}, "not a truth file"),
    ],
)
def test_a_changed_file_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    """A truth file that contradicts itself is refused with the reason."""
    path = tmp_path / "truth.json"
    write_truth(path, build(event(0), event(1)))
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}), encoding="utf-8")
    with pytest.raises(TruthError, match=says):
        read_truth(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A truth that is not there is a one-line error."""
    with pytest.raises(TruthError, match=r"absent\.json"):
        read_truth(tmp_path / "absent.json")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """When the new truth cannot be put in place, no half of it is left behind."""
    path = tmp_path / "truth.json"
    path.mkdir()
    with pytest.raises(OSError, match=r"truth\.json"):
        write_truth(path, build(event(0)))
    assert list(tmp_path.iterdir()) == [path]
