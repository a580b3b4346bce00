"""The command line `batch-assets`; hours are started with Dagster's own."""

import shlex
from pathlib import Path

import click
import sqlalchemy as sa

from batch_assets.cli.actuals import actuals
from batch_assets.cli.baseline import baseline
from batch_assets.cli.challenger import challenger
from batch_assets.cli.grants import grants
from batch_assets.cli.pipelines import declared_pipelines
from batch_assets.cli.promote import promote, rollback
from batch_assets.cli.prune import prune
from batch_assets.cli.register import register
from batch_assets.cli.rescore import rescore
from batch_assets.cli.retry import retry
from batch_assets.cli.status import status
from batch_assets.database.connection.engine import engine_for
from batch_assets.database.schema.tables import item_table
from batch_assets.errors import BatchAssetsError, SettingsError
from batch_assets.settings.database import MySQLSettings, SQLiteSettings, database_settings
from batch_assets.settings.environment import environment
from batch_assets.settings.folders import home_folder, is_wheel


class _Sentences(click.Group):
    """Shows a fault as its sentence, without a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BatchAssetsError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Sentences)
def main() -> None:
    """Hourly batch inference on Dagster and MySQL.

    The database is the one of MYSQL_SERVER, MYSQL_PORT, MYSQL_USER, MYSQL_PASSWORD and MYSQL_DATABASE, or an embedded
    SQLite file without MYSQL_SERVER.
    """


@main.command("init-db")
def init_db() -> None:
    """Create what is missing in the database; adopt the tables that are there."""
    from batch_assets.database.schema.setup import initialize_database  # noqa: PLC0415 - imports Alembic

    tables: dict[MySQLSettings | SQLiteSettings, list[sa.Table]] = {}
    for declaration in declared_pipelines():
        tables.setdefault(database_settings(declaration.variables()), []).append(item_table(declaration.items))
    done = []
    for database, declared in tables.items():
        done += initialize_database(engine_for(database), *declared)
        if isinstance(database, SQLiteSettings):
            done += _make_home(home_folder(environment()))
    for sentence in done or ["nothing to do"]:
        click.echo(sentence)


@main.command()
def serve() -> None:
    """Serve the web API, on API_HOST and API_PORT.

    It registers items and shows what became of them; http://127.0.0.1:8000/docs says how. The pipeline of the
    environment is at /data, the others that a project declares are at /pipelines.
    """
    try:
        from batch_assets.api.server import serve  # noqa: PLC0415 - an optional dependency group
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"The API needs the package {error.name}, which is missing: install batch-assets with the extra `api`."
        ) from error
    serve(environment(), declared_pipelines())


@main.command()
def demo() -> None:
    """Fill an empty database with 65,322 iris items of past hours and score them with `dagster job execute`."""
    from batch_assets.iris.demo import run_demo  # noqa: PLC0415 - imports scikit-learn

    if not environment().get("DAGSTER_HOME"):
        _make_home(home_folder(environment()))
    run_demo(click.echo)
    click.echo()
    click.get_current_context().invoke(status, count=48)
    instance = shlex.quote(environment().get("DAGSTER_HOME") or str(home_folder(environment())))
    ui = f"DAGSTER_HOME={instance} dagster dev -m batch_assets.definitions" if is_wheel() else "make ui"
    click.echo(f"\nThe same in Dagster's UI, where an hour can be materialised again and a range backfilled: {ui}")


def _make_home(home: Path) -> list[str]:
    """Makes the Dagster instance of the embedded default, which keeps its runs in the same folder."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        with (home / "dagster.yaml").open("x") as settings:
            settings.write((Path(__file__).parents[1] / "embedded_dagster.yaml").read_text())
    except FileExistsError:
        return []
    except OSError as error:
        raise SettingsError(
            f"The folder {home} cannot be used ({error}): make it writable, or set BATCH_ASSETS_HOME to another one."
        ) from error
    folder = shlex.quote(str(home))
    return [f"made the Dagster instance {home}: export DAGSTER_HOME={folder} to use it"]


for command in (register, status, retry, rescore, baseline, actuals, challenger, promote, rollback, prune, grants):
    main.add_command(command)
