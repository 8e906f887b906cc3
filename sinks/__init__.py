"""Topics to ClickHouse.

Owns: the ClickHouse tables and their migrations.
Reads: usage.events, spend.snapshots, alerts, throttle.commands, throttle.acks, usage.dead-letter,
    audit.log, deliveries.
Writes: ClickHouse; usage.dead-letter for what ClickHouse refuses.
Never: commits an offset before its rows are inserted.
"""
