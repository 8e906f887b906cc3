"""Money is exact, and rounds in one place."""

from __future__ import annotations

from decimal import Decimal

import pytest

from meterline.schemas.money import (
    MoneyError,
    divide_half_even,
    nano_from_usd,
    usd_decimal,
    usd_display,
    usd_text,
)


@pytest.mark.parametrize(
    ("numerator", "denominator", "expected"),
    [
        (0, 1000, 0),
        (499, 1000, 0),
        (500, 1000, 0),  # half goes to the even neighbour below
        (1500, 1000, 2),  # half goes to the even neighbour above
        (501, 1000, 1),
        (-500, 1000, 0),
        (-1500, 1000, -2),
        (-1501, 1000, -2),
        (7, 3, 2),
        (10**40 + 1, 2, 5 * 10**39),  # far beyond 64 bits
    ],
)
def test_divide_rounds_half_to_even(numerator: int, denominator: int, expected: int) -> None:
    """A half goes to the even neighbour, on both sides of zero, at any size."""
    assert divide_half_even(numerator, denominator) == expected


@pytest.mark.parametrize("denominator", [0, -5])
def test_divide_refuses_a_denominator_that_is_not_positive(denominator: int) -> None:
    """A denominator below one is a defect of the caller and says so."""
    with pytest.raises(MoneyError, match="must be positive"):
        divide_half_even(1, denominator)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.1", 100_000_000), ("1", 10**9), ("0.000000001", 1), ("-2.5", -2_500_000_000)],
)
def test_dollars_are_read_exactly(text: str, expected: int) -> None:
    """Dollars as text become nano-dollars without a float in between."""
    assert nano_from_usd(text) == expected


@pytest.mark.parametrize("text", ["0.0000000001", "abc", "NaN", "Infinity", ""])
def test_what_is_no_whole_nano_dollar_is_refused(text: str) -> None:
    """An amount that nano-dollars cannot hold is an error, never a rounding."""
    with pytest.raises(MoneyError):
        nano_from_usd(text)


@pytest.mark.parametrize(
    ("nano", "text"),
    [(5_504_000, "0.005504000"), (-1, "-0.000000001"), (12_000_000_000, "12.000000000")],
)
def test_text_has_nine_places(nano: int, text: str) -> None:
    """The outside sees all nine places, as a string."""
    assert usd_text(nano) == text
    assert usd_decimal(nano) == Decimal(text)


@pytest.mark.parametrize(
    ("nano", "places", "text"),
    [
        (1_234_567_891_234, 2, "$1,234.57"),
        (-4_000_000, 2, "$0.00"),  # no minus before a zero
        (-15_000_000, 2, "-$0.02"),
        (999_999_999, 0, "$1"),
    ],
)
def test_display_is_for_reading(nano: int, places: int, text: str) -> None:
    """An operator sees thousands separated and a rounded amount."""
    assert usd_display(nano, places) == text
