"""Measurements of the product; each module prints JSON with --json."""
