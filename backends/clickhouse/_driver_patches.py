"""The private method of clickhouse-connect that Meterline overrides, with its symptom.

clickhouse-connect is pinned to one major release for this file. `@override` makes mypy fail when
the driver no longer has it, `tests/unit/backends/test_backends_clickhouse_types.py` when its bytes or
its need change.

| patch  | what happens without it, clickhouse-connect 1.12                                    |
|--------|-------------------------------------------------------------------------------------|
| Packed | arrays are packed again, number by number: 10,000 take 100 to 340 us instead of 1 to 3 |
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from typing import Any

from clickhouse_connect.datatypes.base import ClickHouseType
from clickhouse_connect.driver.insert import InsertContext
from typing_extensions import override


class Packed(ClickHouseType, registered=False):
    """A number that may also be given as an array, which holds its bytes already.

    The driver packs every column number by number, whatever holds it.
    """

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
