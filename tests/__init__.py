"""Promises of the product, one sentence each."""
