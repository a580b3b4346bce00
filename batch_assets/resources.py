"""What the assets are handed: the database and the model that the environment names."""

import os

import dagster as dg
import sqlalchemy as sa

from batch_assets.database.engine import engine_from_environment
from batch_assets.inference.model import ModelFiles, OnnxModel, load_labels, load_model


class Database(dg.ConfigurableResource[sa.Engine]):
    """The database of `MYSQL_SERVER` and its companions, or the embedded SQLite file."""

    def engine(self) -> sa.Engine:
        """Returns its engine.

        Raises:
            SettingsError: A variable is missing or has a value that cannot be used.
        """
        return engine_from_environment()


class Model(dg.ConfigurableResource[OnnxModel]):
    """The model of `MODEL_FILEPATH` with the labels of `LABEL_FILEPATH`, or the iris model."""

    def files(self) -> ModelFiles:
        """Returns where its files lie."""
        return ModelFiles.from_environment(os.environ)

    def labels(self) -> tuple[str, ...]:
        """Returns the labels in the order of the probabilities.

        Raises:
            ModelError: The file of labels is missing or unusable.
        """
        return load_labels(self.files().label_filepath)

    def load(self) -> OnnxModel:
        """Returns the model, checked against its labels and its sample.

        Raises:
            ModelError: A file is missing or unusable, or they do not fit each other.
        """
        return load_model(self.files())
