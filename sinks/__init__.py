"""Topics to ClickHouse.

Owns: the ClickHouse tables and their migrations.
Reads: usage.events, spend.snapshots, alerts, throttle.commands, throttle.acks, usage.dead-letter, audit.log.
Writes: ClickHouse.
Never: commits an offset before its rows are inserted.
"""
