"""What-if scenarios, and adjustments of what was charged.

Owns: price_adjustments and the archive of catalogues.
Reads: usage_events with their frozen costs, and what it writes itself.
Writes: price_adjustments, each naming its catalogue, reason and run; price_catalogues.
Never: changes an event or its price.
"""
