"""Shared words: values and wire contracts.

Owns: the shape of every message, table name, scope, window and unit of money.
Reads: nothing.
Writes: nothing.
Never: does I/O, never reads a clock, never imports a driver.
"""
