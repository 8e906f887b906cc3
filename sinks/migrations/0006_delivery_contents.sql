-- What a delivery told, and by which route: so that it can be shown and sent again.
-- On a cluster each statement runs for the local table and for the distributed one over it; on one
-- server both are the same table.

ALTER TABLE {local:deliveries} {on_cluster}
    ADD COLUMN IF NOT EXISTS alerts Array(String) COMMENT 'Alerts it tells of, JSON' CODEC(ZSTD(3)),
    ADD COLUMN IF NOT EXISTS alert_ids Array(String) COMMENT 'Their ids',
    ADD COLUMN IF NOT EXISTS route LowCardinality(String) COMMENT 'Route that chose the channel; empty where every channel is told',
    ADD COLUMN IF NOT EXISTS queue String COMMENT 'Incident or group whose messages leave in order';

ALTER TABLE deliveries {on_cluster}
    ADD COLUMN IF NOT EXISTS alerts Array(String) COMMENT 'Alerts it tells of, JSON',
    ADD COLUMN IF NOT EXISTS alert_ids Array(String) COMMENT 'Their ids',
    ADD COLUMN IF NOT EXISTS route LowCardinality(String) COMMENT 'Route that chose the channel; empty where every channel is told',
    ADD COLUMN IF NOT EXISTS queue String COMMENT 'Incident or group whose messages leave in order';
