"""Which partition an API key belongs to: Kafka's own default choice.

Producers in other languages that send single events with the API key as the record key use the same
partitions. All events of one key are then in one partition whatever relay sent them, and the streams'
deduplication by event id, which works per partition, sees every duplicate.
"""

from __future__ import annotations

# One entry is about 100 bytes; a relay with more keys than this clears the table and pays about
# 5 us per key once more.
CACHED_KEYS_MAX = 65_536

_SEED = 0x9747B28C
_M = 0x5BD1E995
_R = 24
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2 (org.apache.kafka.common.utils.Utils), unsigned."""
    length = len(data)
    h = _SEED ^ length
    whole = length & ~3
    for start in range(0, whole, 4):
        k = int.from_bytes(data[start : start + 4], "little") * _M & _MASK
        k = (k ^ k >> _R) * _M & _MASK
        h = h * _M & _MASK ^ k
    if whole < length:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


class Partitioner:
    """API key to partition, remembered per key. For one thread."""

    def __init__(self, partitions: int) -> None:
        """Take the topic's number of partitions."""
        self.partitions = partitions
        self._cache: dict[str, int] = {}

    def partition_of(self, key: str) -> int:
        """The partition of one API key."""
        found = self._cache.get(key)
        if found is None:
            if len(self._cache) >= CACHED_KEYS_MAX:
                self._cache.clear()
            found = (murmur2(key.encode()) & 0x7FFFFFFF) % self.partitions
            self._cache[key] = found
        return found
