"""The usage export, the hash chain and erasure, for auditors.

Owns: the usage export, the hash chain over administrative actions, erasure of personal data.
Reads: usage_events under FINAL, persons, audit_log, audit_chain.
Writes: audit_chain; deletes from persons and clears dead letters that name an erased subject.
Never: changes an event, a total or an action.
"""
