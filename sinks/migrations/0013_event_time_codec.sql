-- Smaller times, and views that read one month where one is asked for.
--
-- T64 by bits instead of bytes cuts a third of a byte from every event (3.9 to 3.6 at five million in
-- three months). Measured beside it: differences are larger (4.0 to 4.4) where ids are not in the order
-- of time. Parts that are there keep their codec until they are merged; nothing is rewritten now.
ALTER TABLE {local:usage_events} {on_cluster} MODIFY COLUMN IF EXISTS event_time CODEC(T64('bit'), ZSTD(1));

-- As before, with the setting that every reader of ours gives: rows of one sorting key lie in one
-- month, so FINAL need not look across months. Analysts' own tools do not set it.
CREATE OR REPLACE VIEW analyst_events {on_cluster} AS
SELECT event_id, event_time, organisation, department, project, user, team, environment, key, key_name,
       model, provider, service_tier, operation, input_tokens, output_tokens, cache_read_tokens,
       cache_write_tokens + cache_write_1h_tokens AS cache_write_tokens, reasoning_tokens, cost_usd,
       priced, price_version, status, http_status, latency_ms, ttft_ms, tags, corrects_id
FROM usage_events FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'Events for analysts: each once, nothing personal';
