"""Usage to spend per scope and window.

Owns: the spend table, its changelog (spend.snapshots) and exact counting.
Reads: usage.events.
Writes: spend.snapshots, usage.dead-letter.
Never: commits an offset before its effects are durable.
"""
