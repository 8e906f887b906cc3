"""Pure: rows of usage_events back to the events they were made of; the inverse of `usage_rows`.

Exact but for two things: an event that named no department and one that named `unassigned` are
stored alike, and fields that Meterline does not know stay in `extra`.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
import orjson

from meterline.schemas.money import nano_from_usd
from meterline.schemas.scopes import UNASSIGNED
from meterline.schemas.usage import UsageEvent
from meterline.sinks.core.usage_rows import BOUNDS, COLUMN_OF

_FIELDS: Final = UsageEvent.__struct_fields__
_EXTRA: Final = "extra"
_TIME: Final = "toUnixTimestamp64Milli(event_time)"
STORED_COLUMNS: Final = (
    *(_TIME if name == "time_ms" else f"`{COLUMN_OF.get(name, name)}`" for name in _FIELDS),
    _EXTRA,
)
"""What to select, in this order, for `stored_event`."""


def stored_event(row: Sequence[Any]) -> UsageEvent:
    """The event of one row of STORED_COLUMNS."""
    values = dict(zip(_FIELDS, row, strict=False))
    if values["department"] == UNASSIGNED:
        values["department"] = ""
    reported = values["reported_cost_nano_usd"]
    if reported is not None:
        values["reported_cost_nano_usd"] = nano_from_usd(Decimal(reported))
    if row[-1]:
        values |= _clamped(row[-1])
    return msgspec.convert(values, UsageEvent)


def _clamped(extra: str) -> dict[str, int]:
    """The values that were stored clamped, as they were sent."""
    noted = orjson.loads(extra)
    return {
        field: int(noted[column])
        for field, column in ((name, COLUMN_OF.get(name, name)) for name in _FIELDS)
        if column in BOUNDS and column in noted
    }
