"""Apache Kafka from Maven's jars.

Owns: the pom.xml that names the version.
Reads: the local Maven cache.
Writes: its data directory.
Never: used by the product itself.
"""
