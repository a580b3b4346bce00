"""Dagster's daemon, which looks for backfills as often as a variable says: no setting of Dagster does."""

import os

from dagster._daemon import cli, controller

SECONDS = "SECONDS_BETWEEN_LOOKS_FOR_BACKFILLS"

if __name__ == "__main__":
    # Fails where a release of Dagster has it no more.
    own = controller.DEFAULT_DAEMON_INTERVAL_SECONDS
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = int(os.environ.get(SECONDS, own))
    cli.main()
