"""One module per kind of channel, and the registry.

Owns: what each kind of channel may say in the policy, and the messages that it sends.
Reads: alerts.
Writes: requests to receivers, through `backends`.
Never: decides who is notified.
"""
