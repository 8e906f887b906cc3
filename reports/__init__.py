"""Questions to ClickHouse.

Owns: attribution and verification queries.
Reads: ClickHouse.
Writes: nothing yet.
Never: sums money without FINAL or a replaceable roll-up.
"""
