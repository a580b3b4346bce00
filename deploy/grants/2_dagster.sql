-- What the roles of `1_roles.sql` need in the database of Dagster's own tables, which is the one in use here.
--
--     mysql dagster < deploy/grants/2_dagster.sql
--
-- Dagster's tables are Dagster's to name, so these rights are on the whole database. An underscore in the name of the
-- database stands for any character in such a grant: choose a name without one.
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, REFERENCES ON * TO batch_assets_migrations;
GRANT SELECT, INSERT, UPDATE, DELETE ON * TO batch_assets_batch;
-- Old runs; and what the UI remembers of the hours that went with them.
GRANT SELECT, UPDATE, DELETE ON * TO batch_assets_prune;
