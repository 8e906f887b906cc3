"""What a month books: lines, their statements, months and the state of each.

Owns: booked lines, statements, the frozen inputs of a close, and the ledger of closed months.
Reads: closed_lines, closed_periods, usage_events, price_adjustments.
Writes: closed_lines, closed_periods.
Never: changes a line that is booked.
"""
