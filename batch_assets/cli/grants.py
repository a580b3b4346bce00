"""`batch-assets grants`: the rights on the table of a pipeline."""

import click

from batch_assets.cli.pipelines import chosen_pipeline
from batch_assets.database.schema.grants import grant_statements


@click.command()
@click.argument("name")
def grants(name: str) -> None:
    """Print the rights on the table of the pipeline NAME, as SQL for an administrator to apply before `init-db`.

    The roles are those of deploy/grants, whose files grant the rights on our own tables.
    """
    for statement in grant_statements(chosen_pipeline(name).items):
        click.echo(statement)
