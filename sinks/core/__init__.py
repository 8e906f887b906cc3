"""Storage decisions, as pure functions.

Owns: state and the functions from state to state.
Reads: its arguments.
Writes: nothing; effects are returned as data.
Never: does I/O, reads a clock, or imports a driver.
"""
