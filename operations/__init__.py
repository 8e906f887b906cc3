"""Use cases that need two packages or more.

Owns: verify, reconcile, rebuild, back-test, explain, event trace, status, replay, close.
Reads: topics and tables, through the clients of a `Pipeline`.
Writes: what a use case is for: corrections, restored state, audit entries.
Never: reads settings or the environment.
"""
