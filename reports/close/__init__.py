"""The monthly close.

Owns: closed_periods and closed_lines, bills, manifests, the files of a closed month.
Reads: usage_events, spend_windows, policy, rate cards.
Writes: ClickHouse, a directory per month and revision, the audit log.
Never: edits what was booked: a difference is a new line.
"""
