"""Topics to ClickHouse.

Owns: every ClickHouse table, its migrations, and the day roll-up.
Reads: usage.events, spend.snapshots, alerts, throttle.commands, throttle.acks, usage.dead-letter,
    audit.log, deliveries, control.policies; of tables, what it writes itself.
Writes: usage_events, usage_batches, spend_windows, throttle_commands, throttle_acks, dead_letters,
    audit_log, control_records, usage_changes, usage_day_cells, usage_days, schema_migrations, and the
    tables of alerts, deliveries and persons; creates for others audit_chain, closed_lines,
    closed_periods, erp_deliveries, price_adjustments, price_catalogues and provider_usage. To
    usage.dead-letter goes what ClickHouse refuses.
Never: commits an offset before its rows are inserted.
"""
