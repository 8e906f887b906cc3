"""Rate cards and rating.

Owns: the catalogue format and the one function that turns usage into money.
Reads: catalogue files that ship with the package or that an operator names.
Writes: catalogues made by the importer.
Never: rates aggregated tokens; never uses a float.
"""
