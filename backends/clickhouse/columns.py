"""Column types of inserts: numbers as packed arrays, money as the integer that is stored.

Columns whose type is a Decimal take and give integers of their last place: nano-dollars for
Decimal(18, 9). DateTime64 columns take integers of their last place as well. No float, no rounding
and no conversion by the driver touches money.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from clickhouse_connect.datatypes.base import ClickHouseType
from clickhouse_connect.datatypes.numeric import Bool, Int32, Int64, Int128, UInt16, UInt64
from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.datatypes.temporal import DateTime64
from typing_extensions import override

from meterline.backends.clickhouse._driver_patches import Packed


class _PackedBool(Packed, Bool, registered=False):
    """Bool; in an array 0 and 1."""


class _PackedInt32(Packed, Int32, registered=False):
    """Int32."""


class _PackedInt64(Packed, Int64, registered=False):
    """Int64."""


class _PackedUInt16(Packed, UInt16, registered=False):
    """UInt16."""


class _PackedUInt64(Packed, UInt64, registered=False):
    """UInt64."""


class _PackedTime(Packed, DateTime64, registered=False):
    """DateTime64; in an array integers of its last place."""


_PACKED: Mapping[type[ClickHouseType], type[Packed]] = {
    Bool: _PackedBool,
    Int32: _PackedInt32,
    Int64: _PackedInt64,
    UInt16: _PackedUInt16,
    UInt64: _PackedUInt64,
    DateTime64: _PackedTime,
}


class _Units64(Packed, Int64, registered=False):
    """A Decimal of up to 18 digits, given as the integer that ClickHouse stores."""

    declared = ""

    @property
    @override
    def insert_name(self) -> str:
        return self.declared


class _Units128(Int128, registered=False):
    """A Decimal of up to 38 digits, given as the integer that ClickHouse stores."""

    declared = ""

    @property
    @override
    def insert_name(self) -> str:
        return self.declared


_DECIMAL = re.compile(r"^(Nullable\()?Decimal\((\d+), (\d+)\)(\))?$")
_DIGITS_64 = 18


# As many as there are types in schemas.tables, several times over.
@lru_cache(maxsize=256)
def column_type(name: str) -> ClickHouseType:
    """The driver's type for a column that is inserted into; its `insert_name` stays the name given.

    Args:
        name: the column's ClickHouse type, as in `Decimal(18, 9)`.
    """
    decimal = _DECIMAL.match(name)
    if decimal is None:
        plain = get_from_name(name)
        packed = _PACKED.get(type(plain))
        return plain if packed is None else packed(plain.type_def)
    whole = "Int64" if int(decimal[2]) <= _DIGITS_64 else "Int128"
    plain = get_from_name(f"Nullable({whole})" if decimal[1] else whole)
    kind = _Units64 if whole == "Int64" else _Units128
    units = kind(plain.type_def)
    units.declared = name
    return units
