"""What-if scenarios, and adjustments of what was charged.

Owns: price_adjustments.
Reads: usage_events and their frozen costs.
Writes: adjustments, each naming its catalogue, reason and run.
Never: changes an event or its price.
"""
