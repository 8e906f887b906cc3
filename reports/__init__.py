"""Questions to ClickHouse: attribution, audit, the monthly close, ERP, FOCUS, providers, repricing.

Owns: every query over stored usage, and the files of a closed month.
Reads: usage_events, usage_batches, usage_changes, usage_days, usage_day_cells, spend_windows,
    throttle_commands, dead_letters, audit_log, control_records, and what it writes itself.
Writes: closed_lines, closed_periods, erp_deliveries, provider_usage, price_adjustments,
    price_catalogues, audit_chain; erases in persons and dead_letters; files of closed months; pushes to an ERP.
Never: sums money without FINAL or a replaceable roll-up.
"""
