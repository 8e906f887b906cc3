-- Every price catalogue that was ever in use, as its files were: an event names its version, and a
-- re-rating or a what-if may ask for an older one. A version is a hash of the content, so a row
-- written again is the same row.
CREATE TABLE IF NOT EXISTS {local:price_catalogues} {on_cluster}
(
    version String COMMENT 'As on the events that it priced',
    number UInt16 COMMENT 'Place of the file: later ones override',
    file_name String COMMENT 'For people',
    content String COMMENT 'The file' CODEC(ZSTD(3)),
    used_since DateTime64(3, 'UTC') COMMENT 'First seen in use'
)
ENGINE = {replacing:used_since}
-- A version is read whole, its files in their order.
ORDER BY (version, number)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Price catalogues that were in use, file by file';

{distributed:price_catalogues:cityHash64(version)}
