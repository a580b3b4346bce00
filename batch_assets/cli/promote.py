"""`batch-assets promote` and `batch-assets rollback`: which model is in force."""

import os
import pwd
import socket

import click

from batch_assets.cli.pipelines import chosen_pipeline
from batch_assets.wording import counted, short_version

_UNDER_WAY = "Runs that are under way go on with the model that they began with."


@click.command()
@click.argument("name")
def promote(name: str) -> None:
    """Put the challenger of the pipeline NAME in force, if it scores recent items as the next hour would be scored.

    The next run scores with it. The pipeline of the environment is called `items`.
    """
    from batch_assets.scoring.promotion import promote  # noqa: PLC0415 - imports the model's room

    made, tried = promote(chosen_pipeline(name).load(), _account())
    click.echo(f"In force from the next run on: {_shown(made.model, made.version)}")
    click.echo(f"before: {_shown(made.model_before, made.version_before)}")
    click.echo(f"{counted(tried.items, 'recent item')} tried: {tried.scored:,} scored, {tried.failed:,} failed")
    click.echo(_UNDER_WAY)
    click.echo(f"To take it back: batch-assets rollback {name}")


@click.command()
@click.argument("name")
def rollback(name: str) -> None:
    """Put the model before the last promotion of the pipeline NAME that was not taken back in force again.

    The next run scores with it, if it is still the model that it was.
    """
    from batch_assets.scoring.promotion import roll_back  # noqa: PLC0415 - imports the model's room

    made = roll_back(chosen_pipeline(name).load(), _account())
    click.echo(f"In force again from the next run on: {_shown(made.model, made.version)}")
    click.echo(f"taken back: {_shown(made.model_before, made.version_before)}")
    click.echo(_UNDER_WAY)


def _shown(model: str, version: str | None) -> str:
    return f"{model}, {short_version(version)}" if version else model


def _account() -> str:
    """Returns who runs the command: by the number of the account, since its variables can be set to any name."""
    number = os.getuid()
    try:
        account = pwd.getpwuid(number).pw_name
    except KeyError:  # in a container, which may run as any number
        account = f"user {number}"
    return f"{account}@{socket.gethostname()}"
