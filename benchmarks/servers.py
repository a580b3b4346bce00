"""A private database server of the kind that is asked for, where that of the machine is of another."""

import contextlib
import os
import runpy
import sys
from collections.abc import Iterator

from batch_assets.settings.folders import root_folder
from batch_assets_tests.support.programs import MissingProgramError
from batch_assets_tests.support.servers import PrivateServer, find_server


@contextlib.contextmanager
def server_of_kind(kind: str | None, *options: str) -> Iterator[PrivateServer]:
    """Starts a private server, and ends it.

    Args:
        kind: `mariadb` or `mysql`, which is Oracle's; None for the one that is found.
        options: Further options of the server.

    Raises:
        MissingProgramError: There is no such server on this machine, and it cannot be installed.
    """
    found = find_server()
    if kind == "mysql" and not (found or "").endswith("mysqld"):
        if os.geteuid() != 0:
            raise MissingProgramError(
                "a private server of Oracle's MySQL", "put mysqld on the path, or run this as root on Debian"
            )
        mysql_root = runpy.run_path(str(root_folder() / ".ci" / "oracle_mysql.py"))["mysql_root"]
        private = PrivateServer(*options, binary="/usr/sbin/mysqld", root=mysql_root())
    else:
        private = PrivateServer(*options)
    with private:
        if kind and private.server.is_mariadb != (kind == "mariadb"):
            sys.exit(f"--server is {kind}, and the server is {private.server.version}: put its program on the path.")
        yield private
