-- What the batch, pruning and the web API need in the database of the items, which is the one in use here: applied
-- by an administrator after `batch-assets init-db`, and again when an update of the package has brought new tables.
--
--     mysql shop < deploy/grants/3_tables.sql

-- The batch: Dagster's webserver, daemon, code server and runs, and `batch-assets status`, `retry`, `rescore`,
-- `baseline`, `promote` and `rollback`. It writes predictions and nothing else into the items. What was promoted nobody
-- changes or deletes afterwards.
GRANT SELECT, UPDATE (prediction) ON items TO batch_assets_batch;
GRANT SELECT, INSERT, UPDATE, DELETE ON failed_items TO batch_assets_batch;
GRANT SELECT, INSERT, DELETE ON run_summary TO batch_assets_batch;
GRANT SELECT, INSERT, DELETE ON hour_locks TO batch_assets_batch;
GRANT SELECT, INSERT, UPDATE, DELETE ON hour_requests TO batch_assets_batch;
GRANT SELECT, INSERT, DELETE ON baselines TO batch_assets_batch;
GRANT SELECT, INSERT, DELETE ON hour_profiles TO batch_assets_batch;
GRANT SELECT, INSERT, DELETE ON hour_models TO batch_assets_batch;
GRANT SELECT, INSERT, DELETE ON item_models TO batch_assets_batch;
GRANT SELECT, INSERT, DELETE ON actuals TO batch_assets_batch;
GRANT SELECT, INSERT, DELETE ON hour_quality TO batch_assets_batch;
GRANT SELECT, INSERT, DELETE ON challenger_predictions TO batch_assets_batch;
GRANT SELECT, INSERT, UPDATE, DELETE ON challenger_hours TO batch_assets_batch;
GRANT SELECT, INSERT, UPDATE ON incidents TO batch_assets_batch;
GRANT SELECT, INSERT ON promotions TO batch_assets_batch;

-- `batch-assets prune`: the only one who deletes items.
GRANT SELECT, DELETE ON items TO batch_assets_prune;
GRANT SELECT, DELETE ON failed_items TO batch_assets_prune;
GRANT SELECT, DELETE ON run_summary TO batch_assets_prune;
GRANT SELECT, INSERT, DELETE ON hour_locks TO batch_assets_prune;
GRANT SELECT, DELETE ON hour_requests TO batch_assets_prune;
GRANT SELECT, DELETE ON hour_profiles TO batch_assets_prune;
GRANT SELECT, DELETE ON hour_models TO batch_assets_prune;
GRANT SELECT, DELETE ON item_models TO batch_assets_prune;
GRANT SELECT, DELETE ON actuals TO batch_assets_prune;
GRANT SELECT, DELETE ON hour_quality TO batch_assets_prune;
GRANT SELECT, DELETE ON challenger_predictions TO batch_assets_prune;
GRANT SELECT, DELETE ON challenger_hours TO batch_assets_prune;
GRANT SELECT, DELETE ON incidents TO batch_assets_prune;
GRANT SELECT, DELETE ON registrations TO batch_assets_prune;

-- The web API, and `batch-assets register`: adds items and what came true of them, corrects their values, and takes the prediction of what it
-- corrects away. It numbers no items and deletes none.
GRANT SELECT, INSERT (`values`, created_datetime, updated_datetime), UPDATE (`values`, prediction) ON items
  TO batch_assets_api;
GRANT SELECT ON failed_items TO batch_assets_api;
GRANT SELECT ON run_summary TO batch_assets_api;
GRANT SELECT ON hour_requests TO batch_assets_api;
GRANT SELECT ON hour_profiles TO batch_assets_api;
GRANT SELECT ON hour_quality TO batch_assets_api;
GRANT SELECT, INSERT, DELETE ON actuals TO batch_assets_api;
GRANT SELECT ON promotions TO batch_assets_api;
GRANT SELECT, INSERT ON registrations TO batch_assets_api;
