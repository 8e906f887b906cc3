"""Pure alert rules.

Owns: the arithmetic that decides whether a rule is breached.
Reads: observations passed in.
Writes: nothing.
Never: does I/O, never reads a clock.
"""
