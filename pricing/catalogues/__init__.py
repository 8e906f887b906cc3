"""Versioned catalogue files.

Owns: the list prices this release ships.
Reads: nothing.
Writes: nothing.
Never: edited after release: a correction is a new version.
"""
