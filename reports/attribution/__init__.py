"""Attribution of spend by organisation, department, project, user, key, model and tag.

Owns: attribution questions, their SQL and their answers.
Reads: usage_events under FINAL, spend_windows, usage_days, usage_day_cells,
    usage_changes, price_adjustments.
Writes: nothing.
Never: adds up what may hold an event twice.
"""
