"""The parts of the chaos proof: schedule, load, kills, and the audit at the end.

Owns: the schedule of kills, the relays that make the load, what is compared afterwards.
Reads: every topic and table, as an outsider does.
Writes: usage events and policies, through the product's own clients.
Never: looks into a worker to know what it should find.
"""
