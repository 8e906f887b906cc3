"""Meterline: exact usage metering, alerting and enforcement for AI-API relays.

Every folder of the house is a package below this one: `meterline.relay`, `meterline.streams`, ...
"""
