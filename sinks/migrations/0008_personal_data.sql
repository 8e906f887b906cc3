-- Personal data apart from the events, and the chain over administrative actions.
--
-- An event keeps a random number instead of its user's e-mail, address and software; `persons` says
-- what the number stands for. Deleting a person's rows there leaves a number that leads nowhere,
-- and every total as it was.
CREATE TABLE IF NOT EXISTS {local:persons} {on_cluster}
(
    organisation LowCardinality(String) COMMENT 'Organisation of the events',
    person UInt64 COMMENT 'The number in usage_events; made by a sink with a key that it forgets when it ends',
    user String COMMENT 'User id as the relay sent it' CODEC(ZSTD(3)),
    user_email String COMMENT 'E-mail of the user, if the relay sends it' CODEC(ZSTD(3)),
    client_ip String COMMENT 'Address of the caller, if the relay sends it' CODEC(ZSTD(3)),
    user_agent String COMMENT 'Software of the caller' CODEC(ZSTD(3)),
    seen DateTime64(3, 'UTC') COMMENT 'Newest event of a batch that named the person'
)
ENGINE = {replacing:seen}
-- Events ask for their organisation's numbers.
ORDER BY (organisation, person)
-- Longer than any dispute over a bill; `meterline audit retention` changes it.
TTL toDateTime(seen) + INTERVAL 400 DAY
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Personal data of usage events; erased with meterline audit erase';

{distributed:persons:cityHash64(organisation, person)}

ALTER TABLE {local:usage_events} {on_cluster} ADD COLUMN IF NOT EXISTS person UInt64 COMMENT 'Number in persons; 0 for none' CODEC(ZSTD(1)) AFTER ttft_ms;
ALTER TABLE {local:usage_events} {on_cluster} DROP COLUMN IF EXISTS user_email;
ALTER TABLE {local:usage_events} {on_cluster} DROP COLUMN IF EXISTS client_ip;
ALTER TABLE {local:usage_events} {on_cluster} DROP COLUMN IF EXISTS user_agent;

-- One row per administrative action: hash = SHA-256(hash before || row_hash). The order is the
-- order of the audit log's only partition, so whoever computes the chain gets the same.
CREATE TABLE IF NOT EXISTS {local:audit_chain} {on_cluster}
(
    seq UInt64 COMMENT 'Number of the action, from 1 without gaps',
    version UInt64 COMMENT 'Place of the action in the topic, as in audit_log',
    id String COMMENT 'Entry of audit_log',
    day Date COMMENT 'UTC day of the action',
    row_hash FixedString(64) COMMENT 'SHA-256 of the action in canonical JSON, in hexadecimal',
    hash FixedString(64) COMMENT 'SHA-256 of the hash before and row_hash'
)
ENGINE = {replacing:version}
-- The number is the identity: sealing twice writes the same row.
ORDER BY seq
COMMENT 'Hash chain over audit_log; checked by meterline audit verify';

{distributed:audit_chain:cityHash64(seq)}

-- Analysts' own tools read these: one row per event, no FINAL to forget, money exact.
CREATE OR REPLACE VIEW analyst_events {on_cluster} AS
SELECT event_id, event_time, organisation, department, project, user, team, environment, key, key_name,
       model, provider, service_tier, operation, input_tokens, output_tokens, cache_read_tokens,
       cache_write_tokens + cache_write_1h_tokens AS cache_write_tokens, reasoning_tokens, cost_usd,
       priced, price_version, status, http_status, latency_ms, ttft_ms, tags, corrects_id
FROM usage_events FINAL
COMMENT 'Events for analysts: each once, nothing personal';

CREATE OR REPLACE VIEW analyst_spend {on_cluster} AS
SELECT window_kind, window_start, window_end, scope_type, organisation, scope,
       sum(cost_usd) AS cost_usd, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
       sum(cache_read_tokens) AS cache_read_tokens, sum(cache_write_tokens) AS cache_write_tokens,
       sum(reasoning_tokens) AS reasoning_tokens, sum(events) AS requests,
       sum(unpriced_events) AS unpriced
FROM spend_windows FINAL
GROUP BY window_kind, window_start, window_end, scope_type, organisation, scope
COMMENT 'Spend per scope and window for analysts: shards summed';
