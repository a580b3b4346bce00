"""Which models were put in force, and which one is: the table `promotions`, to which rows are only added.

The newest row of a pipeline applies as long as the pipeline declares the model that it declared then: whoever names
another one afterwards means it.
"""

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

import sqlalchemy as sa

from batch_assets.database.connection.engine import engine_for, snapshot, writing
from batch_assets.database.schema.tables import PipelineTables, pipeline_tables, promotions
from batch_assets.errors import DuplicateKeyError, PromotionError
from batch_assets.pipeline import Pipeline
from batch_assets.settings.model import ModelSource, model_of_text, model_text, path_text

PROMOTE, ROLLBACK = "promote", "rollback"


@dataclass(frozen=True)
class NamedModel:
    """A model as the table names it.

    Args:
        model: A file, as it is written from the folder of the project, or `models:/NAME/VERSION`.
        label_filepath: Its labels, None if it needs no file of them.
        version: Its SHA-256, None if that could not be told.
    """

    model: str
    label_filepath: str | None
    version: str | None


@dataclass(frozen=True)
class Promotion:
    """A model that was put in force, or put in force again.

    Args:
        number: Numbers those of the pipeline from 1.
        action: `promote` or `rollback`.
        made_at: When, in UTC without a zone.
        made_by: By which account of which machine, as that says.
        declared: The model that the pipeline declared then.
        model: The model in force from then on.
        label_filepath: Its labels.
        version: Its SHA-256.
        model_before: The model in force until then.
        label_filepath_before: Its labels.
        version_before: Its SHA-256, None if that could not be told.
        takes_back: Which promotion a rollback has taken back.
        database_account: By which account of the server, None on SQLite.
    """

    number: int
    action: str
    made_at: datetime.datetime
    made_by: str
    declared: str
    model: str
    label_filepath: str | None
    version: str
    model_before: str
    label_filepath_before: str | None
    version_before: str | None
    takes_back: int | None = None
    database_account: str | None = None

    @property
    def after(self) -> NamedModel:
        """The model in force from then on."""
        return NamedModel(self.model, self.label_filepath, self.version)

    @property
    def before(self) -> NamedModel:
        """The model in force until then."""
        return NamedModel(self.model_before, self.label_filepath_before, self.version_before)

    @property
    def restores_declared(self) -> bool:
        """Whether it has put the declared model in force again, which is then free to change."""
        return self.action == ROLLBACK and self.model == self.declared


_COLUMNS = [promotions.c[field.name] for field in fields(Promotion)]


def read_promotions(engine: sa.Engine, tables: PipelineTables) -> list[Promotion]:
    """Returns all promotions and rollbacks of a pipeline, the newest first."""
    return _read(engine, _newest_first(tables))


def newest_promotion(engine: sa.Engine, tables: PipelineTables) -> Promotion | None:
    """Returns the newest promotion or rollback of a pipeline, None if there is none."""
    return next(iter(_read(engine, _newest_first(tables).limit(1))), None)


def read_promotion(engine: sa.Engine, tables: PipelineTables, number: int) -> Promotion:
    """Returns one of a pipeline by its number."""
    (found,) = _read(engine, _newest_first(tables).where(promotions.c.number == number))
    return found


def _newest_first(tables: PipelineTables) -> sa.Select[tuple[object, ...]]:
    return sa.select(*_COLUMNS).where(tables.has(promotions)).order_by(promotions.c.number.desc())


def _read(engine: sa.Engine, chosen: sa.Select[tuple[object, ...]]) -> list[Promotion]:
    with snapshot(engine) as connection:
        return [Promotion(**row._mapping) for row in connection.execute(chosen)]


def record_promotion(engine: sa.Engine, tables: PipelineTables, promotion: Promotion) -> None:
    """Adds a row, and with it puts its model in force.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        promotion: What to record, with the number after the newest that was looked at.

    Raises:
        PromotionError: Somebody else has been faster.
    """
    account = sa.null() if engine.dialect.name == "sqlite" else sa.literal_column("USER()")
    row = {**asdict(promotion), "pipeline": tables.pipeline, "database_account": account}
    try:
        with writing(engine) as connection:
            connection.execute(sa.insert(promotions).values(row))
    except DuplicateKeyError as error:
        raise PromotionError(
            f"Somebody else has put a model of {tables.pipeline} in force in the meantime: look at which one it is "
            "(batch-assets status) and decide anew. Nothing was changed."
        ) from error


def applies(pipeline: Pipeline, promotion: Promotion | None) -> bool:
    """Returns whether the newest promotion says which model is in force, and not the declaration."""
    if promotion is None or promotion.restores_declared:
        return False
    return promotion.declared == model_text(pipeline.model, pipeline.folder)


def with_model_in_force(pipeline: Pipeline) -> Pipeline:
    """Returns a pipeline with the model that is in force in the place of the declared one. One small statement.

    Raises:
        DatabaseError: The table is missing, or the server is away.
    """
    newest = newest_promotion(engine_for(pipeline.database), pipeline_tables(pipeline))
    return replace(pipeline, model=model_in_force(pipeline, newest))


def model_in_force(pipeline: Pipeline, newest: Promotion | None) -> ModelSource:
    """Returns the model in force.

    Args:
        pipeline: The pipeline as it is declared.
        newest: Its newest promotion.
    """
    return source_of(pipeline, newest.after) if newest and applies(pipeline, newest) else pipeline.model


def model_that_scored(pipeline: Pipeline, version: str | None) -> ModelSource:
    """Returns the model that has a version, if it was ever put in force; without one that is known the model in force.

    Args:
        pipeline: The pipeline as it is declared.
        version: SHA-256 of a model that has scored items.
    """
    found = read_promotions(engine_for(pipeline.database), pipeline_tables(pipeline))
    known = [named for each in found for named in (each.after, each.before) if named.version == version]
    if version is None or not known:
        return model_in_force(pipeline, found[0] if found else None)
    return source_of(pipeline, known[0])


def source_of(pipeline: Pipeline, named: NamedModel) -> ModelSource:
    """Returns where a model is that the table names, which must still be the version that it was.

    It is tried with the sample of the declared model: it takes the same items.
    """
    labels = pipeline.folder / named.label_filepath if named.label_filepath else None
    source = model_of_text(named.model, labels, pipeline.model.sample_data_path, pipeline.folder)
    return replace(source, sha256=named.version)


def named_model(pipeline: Pipeline, source: ModelSource, version: str | None) -> NamedModel:
    """Returns how the table names a model.

    Args:
        pipeline: Its pipeline.
        source: Where it is.
        version: Its SHA-256.
    """
    labels = path_text(source.label_filepath, pipeline.folder) if source.label_filepath else None
    return NamedModel(model_text(source, pipeline.folder), labels, version)


def to_take_back(pipeline: Pipeline, found: Sequence[Promotion]) -> Promotion | None:
    """Returns the last promotion that was not taken back, among those since the declaration is as it is.

    Args:
        pipeline: The pipeline as it is declared.
        found: All that there are, the newest first.
    """
    declared, taken_back = model_text(pipeline.model, pipeline.folder), set[int | None]()
    for each in found:
        if each.declared != declared:
            return None
        if each.action == PROMOTE and each.number not in taken_back:
            return each
        taken_back.add(each.takes_back)
    return None
