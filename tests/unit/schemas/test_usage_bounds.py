"""The bounds of a usage event's quantities."""

from __future__ import annotations

import msgspec
import pytest

from meterline.schemas.money import NANO_PER_USD
from meterline.schemas.usage import QUANTITY_MAX, UsageEvent

# Dollars per million tokens: above every list price, by a factor of more than one.
DEAREST_USD_PER_MILLION = 1_000
TOKEN_CLASSES = 8


def test_whatever_is_accepted_can_be_stored() -> None:
    """The dearest event that is accepted costs less than the column of the cost can hold."""
    nano_per_token = DEAREST_USD_PER_MILLION * NANO_PER_USD // 1_000_000
    assert TOKEN_CLASSES * QUANTITY_MAX * nano_per_token < 10**18


@pytest.mark.parametrize("field", ["input_tokens", "output_tokens", "provider_input_tokens"])
def test_a_quantity_beyond_the_bound_is_refused(field: str) -> None:
    """What no request can have used is bad input, not money."""
    body = {"id": "a", "time_ms": 0, "organisation": "o", "key": "k", "model": "m"}
    msgspec.convert({**body, field: QUANTITY_MAX}, UsageEvent)
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert({**body, field: QUANTITY_MAX + 1}, UsageEvent)
