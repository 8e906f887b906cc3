"""The client of clickhouse-connect: ClickHouse over HTTP.

Owns: the driver's settings, its bounds, column types and the mapping of its errors.
Reads: ClickHouse.
Writes: ClickHouse.
Never: lets a type or an error of the driver out; never rounds or converts money.
"""
