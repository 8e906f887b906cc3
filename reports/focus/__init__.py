"""FOCUS 1.4: Cost and Usage, and Billing Period.

Owns: the columns and how usage maps to them.
Reads: closed_lines, rate cards.
Writes: CSV.
Never: a row without its quantity, or a billing period that is not the month.
"""
