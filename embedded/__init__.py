"""Servers for one machine without Docker.

Owns: the embedded broker, ClickHouse engine and process supervision.
Reads: its data directory.
Writes: its data directory.
Never: imports another package of Meterline.
"""
