"""Providers' own counts beside ours: import, comparison.

Owns: provider_usage.
Reads: exports of providers, usage_events.
Writes: provider_usage.
Never: changes what is billed; the relay's count is.
"""
