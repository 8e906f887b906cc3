"""How values are written for ClickHouse."""

import pytest
from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.driver.insert import InsertContext

from backends.clickhouse import _column_type


@pytest.mark.parametrize(
    "values",
    [["a"], ["a", "b", "a", ""], [f"key-{number % 300}" for number in range(1_000)]],
    ids=["one", "few", "two_bytes"],
)
def test_labels_are_written_as_the_driver_writes_them(values: list[str]) -> None:
    """Our dictionary of a LowCardinality column gives the driver's bytes, under the same type."""
    name = "LowCardinality(String)"
    ours, theirs = _column_type(name), get_from_name(name)
    context = InsertContext("t", ["c"], [theirs], data=[values], column_oriented=True)
    written, expected = bytearray(), bytearray()
    ours.write_column(values, written, context)
    theirs.write_column(values, expected, context)
    assert ours.insert_name == theirs.insert_name == name
    assert written == expected
