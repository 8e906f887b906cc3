-- What providers say was used, to compare with what was counted. It is never billed.
CREATE TABLE IF NOT EXISTS {local:provider_usage} {on_cluster}
(
    provider LowCardinality(String) COMMENT 'Seller whose export it is',
    account LowCardinality(String) COMMENT 'Which of several accounts there; empty for the only one',
    kind LowCardinality(String) COMMENT 'usage or cost',
    day Date COMMENT 'UTC day, as providers count',
    import_id UInt64 COMMENT 'When it was imported, UTC ms: of a day the newest import holds',
    number UInt32 COMMENT 'Place within the import',
    digest FixedString(64) COMMENT 'SHA-256 of the imported rows: the same again is not imported',
    model LowCardinality(String) COMMENT 'As the provider names it; empty for a day without usage or a cost of no model',
    key String COMMENT 'API key as the provider names it, if the export tells' CODEC(ZSTD(1)),
    project LowCardinality(String) COMMENT 'Project or workspace there, if the export tells',
    requests Int64 COMMENT 'Requests; 0 where the export does not count them' CODEC(T64, ZSTD(1)),
    input_tokens Int64 COMMENT 'Tokens in, cached ones included' CODEC(T64, ZSTD(1)),
    output_tokens Int64 COMMENT 'Tokens out' CODEC(T64, ZSTD(1)),
    cache_read_tokens Int64 COMMENT 'Part of input_tokens read from a cache' CODEC(T64, ZSTD(1)),
    cache_write_tokens Int64 COMMENT 'Part of input_tokens written to a cache' CODEC(T64, ZSTD(1)),
    cost_usd Decimal(38, 9) COMMENT 'What the provider charges, US dollars' CODEC(ZSTD(1))
)
ENGINE = {replacing:import_id}
-- Small; days are read whole. The import is part of the identity: a newer one of a day replaces
-- all its rows, also those that it no longer has, so the reader takes the newest import per day.
ORDER BY (provider, account, kind, day, import_id, number)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Usage and costs as providers export them: of a day the newest import_id holds';

{distributed:provider_usage:cityHash64(provider)}
