"""The control plane: what operators declare and order.

Owns: the policy compiler, the policy store, manual throttles, overrides and silences.
Reads: policy files, control.policies.
Writes: control.policies, audit.log.
Never: evaluates a rule; never talks to ClickHouse.
"""
