-- A roll-up by day that stays exact whatever is sent again, comes late or is taken back.
--
-- A cell is a department's UTC day. Sinks mark a cell after they stored rows of it; the roll-up
-- counts a cell from usage_events FINAL and writes down which marks it had seen before it read. A
-- cell whose marks have grown since is stale: reports read its events instead. So nothing is ever
-- added to a row that may hold an event already, and an unrefreshed roll-up is slow, not wrong.
CREATE TABLE IF NOT EXISTS {local:usage_changes} {on_cluster}
(
    organisation LowCardinality(String) COMMENT 'Organisation of the stored events',
    department LowCardinality(String) COMMENT 'Their department',
    cell_day Date COMMENT 'Their UTC day',
    shard LowCardinality(String) COMMENT 'Topic and partition they came from',
    version UInt64 COMMENT 'source_epoch * 2^40 + source_offset + 1: only grows for a shard'
)
ENGINE = {replacing:version}
PARTITION BY toYYYYMM(cell_day)
-- The shard last: a cell changed when the sum over its shards did.
ORDER BY (organisation, department, cell_day, shard)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'How far the events of a department and day are stored';

{distributed:usage_changes:cityHash64(organisation, department)}

CREATE TABLE IF NOT EXISTS {local:usage_days} {on_cluster}
(
    grain LowCardinality(String) COMMENT 'department: without project, environment and key; key: with them',
    organisation LowCardinality(String) COMMENT 'Organisation that pays',
    department LowCardinality(String) COMMENT 'Department',
    cell_day Date COMMENT 'UTC day: with organisation and department the cell that is replaced',
    time_zone LowCardinality(String) COMMENT 'Billing time zone of `day`',
    attempt UInt64 COMMENT 'Count that made the row; it stands if usage_day_cells names it' CODEC(Delta, ZSTD(1)),
    day Date COMMENT 'Day in the billing time zone',
    project LowCardinality(String) COMMENT 'Project, if any',
    environment LowCardinality(String) COMMENT 'Environment, if any',
    key String COMMENT 'API key id' CODEC(ZSTD(3)),
    model LowCardinality(String) COMMENT 'Canonical model',
    provider LowCardinality(String) COMMENT 'Seller',
    cost_usd Decimal(38, 9) COMMENT 'Cost in US dollars, exact to the nano-dollar' CODEC(ZSTD(1)),
    input_tokens Int64 COMMENT 'Tokens in, cached ones included' CODEC(T64, ZSTD(1)),
    output_tokens Int64 COMMENT 'Tokens out, reasoning included' CODEC(T64, ZSTD(1)),
    cache_read_tokens Int64 COMMENT 'Part of input_tokens read from a cache' CODEC(T64, ZSTD(1)),
    cache_write_tokens Int64 COMMENT 'Part of input_tokens written to a cache' CODEC(T64, ZSTD(1)),
    reasoning_tokens Int64 COMMENT 'Part of output_tokens spent on reasoning' CODEC(T64, ZSTD(1)),
    events Int64 COMMENT 'Events counted' CODEC(T64, ZSTD(1)),
    unpriced_events Int64 COMMENT 'Events counted that had no price' CODEC(T64, ZSTD(1))
)
ENGINE = {replacing:attempt}
PARTITION BY toYYYYMM(cell_day)
-- The grain and the day first: a report reads one grain and a range of days. The attempt is part of
-- the key, so that counts do not replace each other row by row: usage_day_cells replaces a whole
-- cell at once, also where a count has fewer rows than the one before.
ORDER BY (grain, cell_day, organisation, department, attempt, time_zone, day, model, provider, project, environment, key)
COMMENT 'Usage per billing day; read rows whose attempt is named in usage_day_cells';

{distributed:usage_days:cityHash64(organisation, department)}

CREATE TABLE IF NOT EXISTS {local:usage_day_cells} {on_cluster}
(
    organisation LowCardinality(String) COMMENT 'Organisation of the cell',
    department LowCardinality(String) COMMENT 'Department of the cell',
    cell_day Date COMMENT 'UTC day of the cell',
    time_zone LowCardinality(String) COMMENT 'Billing time zone it was counted for',
    version UInt64 COMMENT 'Sum of the marks of usage_changes seen before counting',
    attempt UInt64 COMMENT 'The count whose rows of usage_days stand'
)
ENGINE = {replacing:attempt}
PARTITION BY toYYYYMM(cell_day)
-- One row per cell and time zone: the newest count stands.
ORDER BY (organisation, department, cell_day, time_zone)
COMMENT 'Which rows of usage_days stand, and how far they count';

{distributed:usage_day_cells:cityHash64(organisation, department)}

-- What was stored before there were marks.
INSERT INTO usage_changes
SELECT DISTINCT organisation, department, toDate(event_time), 'before-marks', 1
FROM usage_events;
