"""Clients of the outside, one per driver.

Owns: the error trees that drivers' exceptions are mapped to.
Reads: Kafka, ClickHouse and HTTP peers.
Writes: Kafka, ClickHouse and HTTP peers.
Never: decides anything about the domain.
"""
