"""Projects of Dagster that declare pipelines, and a table of customers for them to score."""

import datetime
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd

from batch_assets.component import BatchInferenceComponent, pipeline_definitions
from batch_assets.orchestration.names import asset_keys
from batch_assets.pipeline import Declaration
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.pipeline import START

PYPROJECT = '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "shop"\n'
DEFINITIONS = '''"""What `dagster dev -m shop.definitions` loads."""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """Returns what the folder `defs` declares."""
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
'''
CHURN = """type: batch_assets.BatchInferenceComponent
attributes:
  name: churn
  table: {name: customers, key: id, created: created_at, features: [age, plan, spent, active], output: churn_score}
  model: {file: models/churn.onnx, task: regression}
  first_hour: 2026-11-01-00:00
  schedule: {minute: 35}
  retry: {policy: partial, max_attempts: 3, max_failed_share: 0.05}
"""


def write_project(folder: Path, yaml: str) -> Path:
    """Writes a project whose package is `shop`, and returns its defs.yaml."""
    file = folder / "shop" / "defs" / "pipelines" / "defs.yaml"
    file.parent.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "shop" / "__init__.py").touch()
    (folder / "shop" / "definitions.py").write_text(DEFINITIONS)
    file.write_text(yaml)
    return file


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Has the package of a project be found here, and forgotten afterwards."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
            del sys.modules[name]


def declared(folder: Path, **attributes: object) -> Declaration:
    """A pipeline as these attributes of a YAML declare it."""
    return BatchInferenceComponent.from_attributes_dict(attributes=attributes).declaration(folder)


def run_of(instance: dg.DagsterInstance, *declarations: Declaration, hour: str) -> dg.ExecuteInProcessResult:
    """Materialises the assets of pipelines in one run, whatever becomes of it."""
    keys = [key for declaration in declarations for key in asset_keys(declaration)]
    job = dg.define_asset_job("these", selection=dg.AssetSelection.assets(*keys))
    definitions = dg.Definitions.merge(dg.Definitions(jobs=[job]), *map(pipeline_definitions, declarations))
    return definitions.resolve_job_def("these").execute_in_process(
        instance=instance, partition_key=hour, raise_on_error=False, asset_selection=keys
    )


def create_customers(sql: Sql, rows: pd.DataFrame, columns: str = "churn_score DOUBLE", start: str = START) -> None:
    """Makes the table of customers, created one second after the other.

    Args:
        sql: The database.
        rows: The customers.
        columns: What is written to, in SQL.
        start: When the first was created.
    """
    sql(
        "CREATE TABLE customers (id INTEGER PRIMARY KEY, age INT, plan VARCHAR(20), spent DOUBLE, active BOOLEAN, "
        f"created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, {columns})"
    )
    first, values = datetime.datetime.fromisoformat(start), []
    for number, row in enumerate(rows.to_dict("records"), 1):
        created = first + datetime.timedelta(seconds=number)
        values.append(f"({number}, {row['age']}, '{row['plan']}', {row['spent']!r}, {int(row['active'])}, '{created}')")
    sql(f"INSERT INTO customers (id, age, plan, spent, active, created_at) VALUES {', '.join(values)}")


def scores(sql: Sql, column: str = "churn_score") -> np.ndarray:
    """What stands in a column of the customers."""
    return np.array([value for (value,) in sql(f"SELECT {column} FROM customers ORDER BY id")], dtype=float)
