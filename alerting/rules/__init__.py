"""The kinds of alert rules, one module each, and their registry.

Owns: what a rule is in the policy file, when it holds, what its alert says and advises.
Reads: observations passed in.
Writes: nothing.
Never: does I/O, reads a clock, imports `alerting.core`, which evaluates them.
"""
