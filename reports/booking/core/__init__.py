"""Decisions of booking, as pure functions.

Owns: allocation, statements, the calendar of months, currency, the states of a month.
Reads: its arguments.
Writes: nothing; effects are returned as data.
Never: does I/O, reads a clock, or imports a driver.
"""
