"""One module per kind of channel, and the registry.

Owns: what each kind of channel may say in the policy, and the messages that it sends.
Reads: nothing; the messages are passed in.
Writes: nothing; a request is returned as data.
Never: decides who is notified.
"""
