"""The MySQL IO manager: assets as tables, or as slices of tables, on MySQL, MariaDB and SQLite.

Driven by the asset's metadata, under the keys of Dagster's own database IO managers where they have one:

| metadata of an asset | meaning |
| --- | --- |
| `table` | the table; the last part of the asset key without it |
| `schema` | the database of the table, `""` for the connection's; the key's prefix, or the connection's without it |
| `partition_expr` | the column or SQL expression of the partition; for multi-partitions one for each dimension |
| `constant_columns` | columns with one value in all rows of the asset, where the table has rows of others too |
| `dagster/column_schema` | the columns (`dg.TableSchema`), of which a missing table is created |
| `key` | the primary key: a column, or several |
| `update_columns` | set these columns of existing rows, found by `key`, instead of replacing rows |
| `unchanged_columns` | with `update_columns`: leave a row in which one of these texts has changed since it was read |

| metadata of an input | meaning |
| --- | --- |
| `columns` | read only these |
| `where` | a further condition in SQL |
| `batch_rows` | rows of a batch at the most, for `Batches` |
| `first_batch_rows` | rows of the first batch; each further one has twice as many, up to `batch_rows` |
"""

from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.batches import Batches, BatchesByPartition
from batch_assets.io_manager.manager import MySQLIOManager

__all__ = ["Batch", "Batches", "BatchesByPartition", "MySQLIOManager"]
