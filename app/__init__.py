"""Composition root.

Owns: settings, the clock, telemetry, wiring and the command line.
Reads: the environment, policy files and all of the packages.
Writes: what its commands say.
Never: holds a rule of the domain.
"""
