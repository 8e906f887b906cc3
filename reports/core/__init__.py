"""Queries and decisions that several reports share, as pure functions.

Owns: queries as values and the functions over their rows.
Reads: its arguments.
Writes: nothing; SQL is returned as a value.
Never: does I/O, reads a clock, or imports a driver.
"""
