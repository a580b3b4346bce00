"""A pipeline that the API serves, with all that its requests need."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import sqlalchemy as sa

from batch_assets.api.item_bodies import ItemBodies, item_bodies
from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.promotions import model_in_force, newest_promotion
from batch_assets.database.schema.tables import PipelineTables, pipeline_tables
from batch_assets.inference.model_files import load_model
from batch_assets.inference.onnx_model import OnnxModel
from batch_assets.pipeline import ENVIRONMENT_PIPELINE, Declaration, ItemTable, Pipeline
from batch_assets.settings.model import ModelSource

# The longest that a statement of the API may wait: longer than MySQL waits for a lock.
ANSWER_SECONDS = 60


@dataclass(frozen=True)
class ServedPipeline:
    """A pipeline with its database and its model.

    Args:
        pipeline: The pipeline.
        engine: Its database.
        model: The declared model, which items must fit: whatever else is put in force takes the same ones.
        bodies: What its items are in requests and answers.
        columns_to_clear: Every column that a pipeline writes for these values; they become NULL when the values change.
    """

    pipeline: Pipeline
    engine: sa.Engine
    model: OnnxModel
    bodies: ItemBodies
    columns_to_clear: tuple[str, ...]

    @property
    def tables(self) -> PipelineTables:
        """The tables of the pipeline."""
        return pipeline_tables(self.pipeline)

    def model_in_force(self) -> OnnxModel:
        """Returns the model that the next run scores with.

        Raises:
            DatabaseError: It cannot be told which one that is.
            ModelError: It cannot be loaded, or is no longer the one that was put in force.
        """
        source = model_in_force(self.pipeline, newest_promotion(self.engine, self.tables))
        return self.model if source == self.pipeline.model else _loaded(source, self.pipeline.items)

    @property
    def is_of_environment(self) -> bool:
        """Whether it is the pipeline of the environment, which has no name in paths and metrics."""
        return self.pipeline.name == ENVIRONMENT_PIPELINE

    @property
    def path(self) -> str:
        """What its paths begin with."""
        return "" if self.is_of_environment else f"/pipelines/{self.pipeline.name}"


def served_pipelines(
    declarations: Sequence[Declaration], environment: Mapping[str, str], connections: int
) -> list[ServedPipeline]:
    """Returns pipelines with their databases and models.

    Args:
        declarations: The pipelines.
        environment: The variables of the databases and the models.
        connections: To each database at the most.

    Raises:
        SettingsError: A variable has a value that cannot be used.
        ModelError: A model or its labels cannot be used.
    """
    pipelines = [declaration.load(environment) for declaration in declarations]
    served = []
    for pipeline in pipelines:
        model = load_model(pipeline.model, pipeline.items)
        engine = engine_for(pipeline.database, connections, ANSWER_SECONDS)
        bodies, columns_to_clear = item_bodies(pipeline, model), tuple(_columns_to_clear(pipeline, pipelines))
        served.append(ServedPipeline(pipeline, engine, model, bodies, columns_to_clear))
    return served


# One that was put in force is always the same.
@lru_cache(maxsize=8)
def _loaded(source: ModelSource, items: ItemTable) -> OnnxModel:
    return load_model(source, items)


def _columns_to_clear(pipeline: Pipeline, pipelines: Sequence[Pipeline]) -> Iterator[str]:
    """Yields the columns that pipelines write for the values that a pipeline scores."""
    for other in pipelines:
        same_table = (other.database, other.items.name) == (pipeline.database, pipeline.items.name)
        if same_table and set(other.items.scored_columns) & set(pipeline.items.scored_columns):
            yield from (output.column for output in other.items.outputs)
