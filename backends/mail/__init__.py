"""The client of mail servers: bounded SMTP sessions over aiosmtplib.

Owns: the driver's bounds, and the guard against sessions into the own network.
Reads: SMTP answers.
Writes: mails.
Never: sends over a connection without TLS where TLS was asked for; never decides what an answer means.
"""
