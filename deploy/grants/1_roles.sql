-- The roles, and what the migrations (`batch-assets init-db`) need: applied first, by an administrator, with the
-- database of the items as the one in use. `3_tables.sql` follows when the tables are there.
--
--     mysql shop < deploy/grants/1_roles.sql
--
-- A role has no password, and nobody can connect as one: what it may do is granted to accounts. Roles belong to the
-- server: where two installations share one, give those of the second other names in a copy of these files.
-- On MySQL and MariaDB alike, and again at any time: what has been granted stays.
CREATE ROLE IF NOT EXISTS batch_assets_migrations;
CREATE ROLE IF NOT EXISTS batch_assets_batch;
CREATE ROLE IF NOT EXISTS batch_assets_prune;
CREATE ROLE IF NOT EXISTS batch_assets_api;

-- By table, which may be there or not: to create each, to read what it looks like, and to add columns and indexes, for
-- which the servers ask INSERT too. Neither to change or delete a row, nor to drop a table.
GRANT SELECT, INSERT, CREATE, ALTER, INDEX ON items TO batch_assets_migrations;
GRANT SELECT, INSERT, CREATE, ALTER, INDEX ON failed_items TO batch_assets_migrations;
GRANT SELECT, INSERT, CREATE, ALTER, INDEX ON run_summary TO batch_assets_migrations;
GRANT SELECT, INSERT, CREATE, ALTER, INDEX ON hour_locks TO batch_assets_migrations;
GRANT SELECT, INSERT, CREATE, ALTER, INDEX ON hour_requests TO batch_assets_migrations;
GRANT SELECT, INSERT, CREATE, ALTER, INDEX ON registrations TO batch_assets_migrations;
GRANT SELECT, INSERT, CREATE, ALTER, INDEX ON baselines TO batch_assets_migrations;
GRANT SELECT, INSERT, CREATE, ALTER, INDEX ON hour_profiles TO batch_assets_migrations;
GRANT SELECT, INSERT, CREATE, ALTER, INDEX ON incidents TO batch_assets_migrations;
GRANT SELECT, INSERT, CREATE, ALTER, INDEX ON hour_models TO batch_assets_migrations;
GRANT SELECT, INSERT, CREATE, ALTER, INDEX ON item_models TO batch_assets_migrations;
GRANT SELECT, INSERT, CREATE, ALTER, INDEX ON actuals TO batch_assets_migrations;
GRANT SELECT, INSERT, CREATE, ALTER, INDEX ON hour_quality TO batch_assets_migrations;
GRANT SELECT, INSERT, CREATE, ALTER, INDEX ON promotions TO batch_assets_migrations;
GRANT SELECT, INSERT, CREATE, ALTER, INDEX ON challenger_predictions TO batch_assets_migrations;
GRANT SELECT, INSERT, CREATE, ALTER, INDEX ON challenger_hours TO batch_assets_migrations;
-- Which migrations have been made.
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON batch_assets_alembic_version TO batch_assets_migrations;
