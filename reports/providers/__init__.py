"""Import of the counts of providers, and their comparison with those of Meterline.

Owns: provider_usage.
Reads: exports of providers, usage_events, provider_usage.
Writes: provider_usage.
Never: changes what is billed; the relay's count is.
"""
