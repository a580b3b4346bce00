"""Runs the statements of an example on the database of the environment, and prints their rows."""

import os
import sys

from batch_assets_tests.support.servers import Server


def main() -> None:
    """Reads the statements from standard input, with semicolons between them."""
    server = Server(
        os.environ["MYSQL_SERVER"],
        int(os.environ["MYSQL_PORT"]),
        os.environ["MYSQL_USER"],
        os.environ["MYSQL_PASSWORD"],
        version="",
    )
    for statement in sys.stdin.read().split(";"):
        if statement.strip():
            for row in server.execute(statement, database=os.environ["MYSQL_DATABASE"]):
                sys.stdout.write(f"{' '.join(map(str, row))}\n")


if __name__ == "__main__":
    main()
