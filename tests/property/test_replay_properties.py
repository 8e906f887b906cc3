"""Laws of the truth: its totals add up in every direction."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from meterline.operations.replay.truth import RunFacts, Truth, TruthBuilder, TruthSums, event_id
from meterline.pricing.catalogue_reader import load_catalogue
from meterline.schemas.periods import Calendar, WindowKind
from meterline.schemas.usage import UsageEvent

CATALOGUE = load_catalogue()
FACTS = RunFacts("r", 1, 0, 0, complete=True, duplicates=0, late=0, malformed=0, invalid=0)
ZONES = ("UTC", "Asia/Kolkata", "America/New_York", "Australia/Lord_Howe")
DAY_MS = 86_400_000


@st.composite
def sent(draw: st.DrawFn) -> list[UsageEvent]:
    """Events of some keys over some days around a change of clocks."""
    count = draw(st.integers(1, 30))
    return [
        UsageEvent(
            id=event_id("r", number),
            time_ms=1_793_000_000_000 + draw(st.integers(0, 9 * DAY_MS)),
            organisation=draw(st.sampled_from(["acme", "globex"])),
            key=draw(st.sampled_from(["k-1", "k-2", "k-3"])),
            department=draw(st.sampled_from(["", "research", "legal"])),
            project=draw(st.sampled_from(["", "p"])),
            user=draw(st.sampled_from(["", "u-1", "u-2"])),
            model=draw(st.sampled_from(["gpt-4.1", "claude-sonnet-4.5", "unknown"])),
            input_tokens=draw(st.integers(0, 300_000)),
            output_tokens=draw(st.integers(0, 10_000)),
        )
        for number in range(count)
    ]


def build(events: list[UsageEvent], zone: str) -> Truth:
    builder = TruthBuilder(CATALOGUE, Calendar(zone))
    for number, event in enumerate(events):
        builder.add(event, number)
    return builder.truth(FACTS)


@given(sent(), st.sampled_from(ZONES))
def test_scopes_add_up_to_their_organisation(events: list[UsageEvent], zone: str) -> None:
    """In every window, keys and departments each sum to the organisation's total."""
    sums: defaultdict[tuple[str, str, WindowKind, int], TruthSums] = defaultdict(TruthSums)
    for key, row in build(events, zone).windows():
        kind, _, name = key.scope.partition(":")
        place = (kind, name.partition("/")[0], key.kind, key.start_ms)
        sums[place] = sums[place].plus(row)
    for (kind, organisation, *window), total in list(sums.items()):
        if kind in {"key", "department"}:
            assert sums["organisation", organisation, window[0], window[1]] == total  # type: ignore[index]


@given(sent(), st.sampled_from(ZONES))
def test_windows_add_up_to_all_events(events: list[UsageEvent], zone: str) -> None:
    """For every scope, minutes, hours, days and months each sum to the same total."""
    for kinds in build(events, zone).totals.values():
        totals = set()
        for starts in kinds.values():
            total = TruthSums()
            for row in starts.values():
                total = total.plus(row)
            totals.add(total)
        assert len(kinds) == 4
        assert len(totals) == 1


@given(sent(), st.randoms(use_true_random=False))
def test_order_does_not_matter(events: list[UsageEvent], shuffle: object) -> None:
    """The same events in another order have the same totals and digest."""
    mixed = list(events)
    shuffle.shuffle(mixed)  # type: ignore[attr-defined]
    left, right = build(events, "UTC"), build(mixed, "UTC")
    assert (left.totals, left.ids_xor) == (right.totals, right.ids_xor)
    assert left.events == sum(
        row.events
        for key, row in left.windows()
        if key.kind is WindowKind.DAY and key.scope.startswith("organisation:")
    )
