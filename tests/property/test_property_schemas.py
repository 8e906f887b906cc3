"""Laws of money, windows and snapshots."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from fractions import Fraction
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from meterline.schemas.codec import decode_usage
from meterline.schemas.money import divide_half_even, nano_from_usd, usd_decimal, usd_text
from meterline.schemas.periods import Calendar, WindowKind, parse_rfc3339, rfc3339
from meterline.schemas.scopes import Scope, ScopeType, parse_scope

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Asia/Shanghai",
    "Australia/Lord_Howe",
    "America/St_Johns",
)
calendars = {zone: Calendar(zone) for zone in ZONES}
times = st.integers(min_value=1_577_836_800_000, max_value=2_500_000_000_000)


@given(st.integers(), st.integers(min_value=1))
def test_the_rounding_is_never_off_by_more_than_half(numerator: int, denominator: int) -> None:
    """The quotient is within one half, and exactly at a half it is even."""
    quotient = divide_half_even(numerator, denominator)
    error = abs(Fraction(numerator, denominator) - quotient)
    assert error < Fraction(1, 2) or (error == Fraction(1, 2) and quotient % 2 == 0)


@given(st.integers(min_value=-(10**30), max_value=10**30))
def test_text_reads_back_as_the_same_money(nano: int) -> None:
    """Nothing is lost between nano-dollars and their text."""
    assert nano_from_usd(usd_text(nano)) == nano
    assert nano_from_usd(usd_decimal(nano)) == nano


@given(times, st.sampled_from(ZONES))
def test_a_time_lies_in_each_of_its_windows(time_ms: int, zone: str) -> None:
    """Windows are half-open, nested, and start where the local clock says."""
    minute, hour, day, month = calendars[zone].windows(time_ms)
    for window in (minute, hour, day, month):
        assert window.start_ms <= time_ms < window.end_ms
        assert window.start_ms % 60_000 == 0
    assert hour.start_ms <= minute.start_ms < minute.end_ms <= hour.end_ms
    assert month.start_ms <= day.start_ms < day.end_ms <= month.end_ms
    local = datetime.fromtimestamp(time_ms / 1000, ZoneInfo(zone))
    start = datetime.fromtimestamp(day.start_ms / 1000, ZoneInfo(zone))
    assert (start.year, start.month, start.day) == (local.year, local.month, local.day)


@given(times, st.sampled_from(ZONES), st.sampled_from([WindowKind.DAY, WindowKind.MONTH]))
def test_windows_tile_the_time_line(time_ms: int, zone: str, kind: WindowKind) -> None:
    """The window after one begins exactly where it ends: no gap, no overlap, DST included."""
    calendar = calendars[zone]
    window = calendar.window(kind, time_ms)
    assert calendar.window(kind, window.end_ms).start_ms == window.end_ms
    assert calendar.window(kind, window.end_ms - 1) == window


@given(times)
def test_times_read_back(time_ms: int) -> None:
    """RFC 3339 text holds the millisecond."""
    assert parse_rfc3339(rfc3339(time_ms)) == time_ms
    assert parse_rfc3339(datetime.fromtimestamp(time_ms // 1000, UTC).isoformat()) == (
        time_ms // 1000 * 1000
    )


names = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters="/:"), min_size=1, max_size=60
).filter(str.isprintable)


@given(names, names)
def test_every_scope_reads_back(organisation: str, identifier: str) -> None:
    """The one spelling loses nothing."""
    scope = Scope(ScopeType.KEY, organisation, identifier)
    assert parse_scope(str(scope)) == scope


# Half of the values of every field are at fault, so that batches with none and with several come up.
fields = st.fixed_dictionaries(
    {
        "time_ms": st.sampled_from([1_793_000_000_000, 1_793_000_500_000, 1_793_000]),
        "organisation": st.sampled_from(["acme", "a/b"]),
        "department": st.sampled_from(["", "research", "a\u0000b"]),
        "key": st.sampled_from(["k", ""]),
        "input_tokens": st.sampled_from([0, 5, -1]),
        "cache_read_tokens": st.sampled_from([0, 6]),
        "tags": st.sampled_from([{}, {"k": "v"}, {"k": "v" * 257}]),
        "corrects_id": st.sampled_from(["", "e"]),
    }
)


@given(st.lists(fields, min_size=1, max_size=4))
def test_a_batch_is_judged_as_its_events_one_by_one(bodies: list[dict[str, object]]) -> None:
    """What is accepted of a batch, and why the rest is not, is what each event alone gets."""
    events = [{"id": f"e{at}", "model": "m", **body} for at, body in enumerate(bodies)]
    whole = decode_usage(
        json.dumps({"lane": "r/b/0", "seq": 1, "events": events}).encode(), 1_793_000_000_000
    )
    alone = [decode_usage(json.dumps(each).encode(), 1_793_000_000_000) for each in events]
    assert whole.events == tuple(event for message in alone for event in message.events)
    assert [(each.event_id, each.reason) for each in whole.rejects] == [
        (each.event_id, each.reason) for message in alone for each in message.rejects
    ]
