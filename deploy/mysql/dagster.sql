-- The first start of the server makes the database of the items and the account by itself, and this besides: a database
-- for Dagster's tables, which have common names.
CREATE DATABASE dagster;
GRANT ALL ON dagster.* TO 'batch'@'%';
