"""The usage export, the hash chain and erasure, for auditors.

Owns: the usage export, the hash chain over administrative actions, erasure of personal data.
Reads: usage_events under FINAL, persons, dead_letters, audit_log, audit_chain.
Writes: audit_chain; deletes from persons, clears dead_letters that name an erased subject, and
    sets how long ClickHouse keeps events, persons and dead letters.
Never: changes an event, a total or an action.
"""
