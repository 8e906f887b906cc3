"""Numbered SQL files, each applied once.

Owns: the ClickHouse schema.
Reads: usage_events and spend_windows, where a migration fills or derives from what is stored.
Writes: every table, when `sinks.migrate` applies them.
Never: edited after release: a change is a new number.
"""
