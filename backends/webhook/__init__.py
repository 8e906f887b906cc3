"""The client of webhook receivers: signed, guarded, bounded HTTP POSTs over httpx.

Owns: the driver's bounds, signatures, and the guard against requests into the own network.
Reads: HTTP answers.
Writes: HTTP requests.
Never: follows a redirect; never decides what an answer means.
"""
