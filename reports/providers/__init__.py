"""Provider reconciliation: import of providers' counts, and their comparison with Meterline's.

Owns: provider_usage.
Reads: exports of providers, usage_events.
Writes: provider_usage.
Never: changes what is billed; the relay's count is.
"""
