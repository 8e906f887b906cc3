"""Numbered SQL files, each applied once.

Owns: the ClickHouse schema.
Reads: nothing.
Writes: nothing by itself.
Never: edited after release: a change is a new number.
"""
