"""How values are written for ClickHouse."""

import time
from array import array

import pytest
from clickhouse_connect.datatypes.base import ClickHouseType
from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.driver.insert import InsertContext

from meterline.backends.clickhouse._driver_patches import Packed
from meterline.backends.clickhouse.columns import column_type


@pytest.mark.parametrize(
    "values",
    [["a"], ["a", "b", "a", ""], [f"key-{number % 300}" for number in range(1_000)]],
    ids=["one", "few", "two_bytes"],
)
def test_labels_are_written_as_the_driver_writes_them(values: list[str]) -> None:
    """A LowCardinality column has the bytes that the driver gives it, under the same type."""
    name = "LowCardinality(String)"
    ours, theirs = column_type(name), get_from_name(name)
    context = InsertContext("t", ["c"], [theirs], data=[values], column_oriented=True)
    written, expected = bytearray(), bytearray()
    ours.write_column(values, written, context)
    theirs.write_column(values, expected, context)
    assert ours.insert_name == theirs.insert_name == name
    assert written == expected


@pytest.mark.parametrize(
    ("name", "code", "values"),
    [
        ("Bool", "B", [True, False]),
        ("Int32", "i", [-(2**31), 0, 2**31 - 1]),
        ("Int64", "q", [-(2**63), 7]),
        ("UInt16", "H", [0, 65_535]),
        ("UInt64", "Q", [0, 2**64 - 1]),
        ("DateTime64(3, 'UTC')", "q", [1_793_000_000_123]),
        ("Decimal(18, 9)", "q", [-5_504_000, 10**18 - 1]),
    ],
)
def test_an_array_is_written_as_the_list_of_its_numbers(
    name: str, code: str, values: list[int]
) -> None:
    """A column of numbers given as an array has the bytes that the driver makes of a list."""
    kind = column_type(name)
    assert isinstance(kind, Packed), "the driver packs it number by number"
    context = InsertContext("t", ["c"], [kind], data=[values], column_oriented=True)
    from_list, from_array = bytearray(), bytearray()
    kind.write_column(values, from_list, context)
    kind.write_column(array(code, values), from_array, context)
    assert from_array == from_list
    assert kind.insert_name == name


def test_an_array_of_another_size_is_an_error() -> None:
    """Numbers of the wrong width are not sent: they would be read as other numbers."""
    kind = column_type("Int64")
    context = InsertContext("t", ["c"], [kind], data=[[1]], column_oriented=True)
    with pytest.raises(ValueError, match="4 bytes"):
        kind.write_column(array("i", [1]), bytearray(), context)


def test_upstream_needs_the_patch_that_sends_arrays_as_they_are() -> None:
    """The bare driver takes at least five times as long to write an array: else drop `Packed`."""
    numbers = array("q", range(20_000))
    patched, bare = column_type("Int64"), get_from_name("Int64")
    context = InsertContext("t", ["c"], [bare], data=[[1]], column_oriented=True)

    def fastest(kind: ClickHouseType) -> float:
        times = []
        for _ in range(20):
            started = time.perf_counter()
            kind.write_column(numbers, bytearray(), context)
            times.append(time.perf_counter() - started)
        return min(times)

    assert fastest(patched) * 5 < fastest(bare)
