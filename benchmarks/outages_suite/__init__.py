"""The outages: what is taken away, what goes on meanwhile, and what is there afterwards.

Owns: the load, the failures, the figures and their bounds.
Reads: topics and tables, as an outsider does.
Writes: usage events, policies and spend, through the product's own clients.
Never: replaces a server by a pretended one.
"""
