"""Column types of inserts: numbers as packed arrays, money as the integer that is stored.

Columns whose type is a Decimal take and give integers of their last place: nano-dollars for
Decimal(18, 9). DateTime64 columns take integers of their last place as well. No float, no rounding
and no conversion by the driver touches money.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from clickhouse_connect.datatypes.base import ClickHouseType
from clickhouse_connect.datatypes.numeric import Bool, Int32, Int64, Int128, UInt16, UInt64
from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.datatypes.string import String
from clickhouse_connect.datatypes.temporal import DateTime64
from clickhouse_connect.driver.insert import InsertContext
from typing_extensions import override


class _Packed(ClickHouseType, registered=False):
    """A number that may also be given as an array, which holds its bytes already."""

    @override
    def _write_column_binary(
        self, column: Sequence[Any], dest: bytearray, ctx: InsertContext
    ) -> None:
        if not isinstance(column, array):
            super()._write_column_binary(column, dest, ctx)
            return
        if column.itemsize != self.byte_size:
            message = f"column {ctx.column_name}: {column.itemsize} bytes for a {self.base_type}"
            raise ValueError(message)
        if sys.byteorder == "big":
            column = array(column.typecode, column)
            column.byteswap()
        dest += memoryview(column).cast("B")


class _PackedBool(_Packed, Bool, registered=False):
    """Bool; in an array 0 and 1."""


class _PackedInt32(_Packed, Int32, registered=False):
    """Int32."""


class _PackedInt64(_Packed, Int64, registered=False):
    """Int64."""


class _PackedUInt16(_Packed, UInt16, registered=False):
    """UInt16."""


class _PackedUInt64(_Packed, UInt64, registered=False):
    """UInt64."""


class _PackedTime(_Packed, DateTime64, registered=False):
    """DateTime64; in an array integers of its last place."""


_PACKED: Mapping[type[ClickHouseType], type[_Packed]] = {
    Bool: _PackedBool,
    Int32: _PackedInt32,
    Int64: _PackedInt64,
    UInt16: _PackedUInt16,
    UInt64: _PackedUInt64,
    DateTime64: _PackedTime,
}


class _Units64(_Packed, Int64, registered=False):
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


class _Labels(String, registered=False):
    """LowCardinality(String) whose dictionary is made without a loop: a third of the time."""

    @property
    @override
    def insert_name(self) -> str:
        return _LABELS

    @override
    def _build_lc_dictionary(
        self, column: Sequence[Any], _ctx: InsertContext
    ) -> tuple[list[Any], list[int]]:
        numbers = {text: number for number, text in enumerate(dict.fromkeys(column))}
        return list(numbers), list(map(numbers.__getitem__, column))


_LABELS = "LowCardinality(String)"
_DECIMAL = re.compile(r"^(Nullable\()?Decimal\((\d+), (\d+)\)(\))?$")
_DIGITS_64 = 18


# As many as there are types in schemas.tables, several times over.
@lru_cache(maxsize=256)
def column_type(name: str) -> ClickHouseType:
    if name == _LABELS:
        return _Labels(get_from_name(name).type_def)
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
