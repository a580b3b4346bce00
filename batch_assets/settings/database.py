"""Where the database is, as the environment says it."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from batch_assets.errors import SettingsError
from batch_assets.settings.environment import secret
from batch_assets.settings.folders import home_folder

# The server drops a reader that takes longer than this between two batches.
READER_PATIENCE_SECONDS = 3600
# What the variables of the database begin with.
DEFAULT_CONNECTION = "MYSQL"
SSL_MODES = ("DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY")


@dataclass(frozen=True)
class TLSSettings:
    """How the connection to the server is encrypted, in the words of MySQL's own clients.

    Args:
        mode: One of `DISABLED`, `PREFERRED`, `REQUIRED`, `VERIFY_CA`, `VERIFY_IDENTITY`.
        certificate_authority: File of the authority that signed the server's certificate (PEM).
        certificate: File of the client's own certificate (PEM), where the server asks for one.
        key: File of the key of that certificate (PEM).
    """

    mode: str = "PREFERRED"
    certificate_authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Returns what Python's `ssl` needs for every mode but `DISABLED`.

        Raises:
            SettingsError: A file is not PEM, the key is not that of the certificate, or it has a password.
        """
        trusting = self.mode in ("PREFERRED", "REQUIRED")
        try:
            if trusting and not self.certificate_authority:
                # Those of the system are not asked for, and to read them takes longer than to open the connection.
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            else:
                context = ssl.create_default_context(cafile=self.certificate_authority)
        except ssl.SSLError as error:
            raise SettingsError(
                f"MYSQL_SSL_CA names {str(self.certificate_authority)!r}, which holds no certificate in PEM ({error}): "
                "name the file of the authority that signed the server's certificate."
            ) from error
        # The certificates that MySQL makes for itself lack extensions that the strict check demands.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.check_hostname = self.mode == "VERIFY_IDENTITY"
        context.verify_mode = ssl.CERT_NONE if trusting else ssl.CERT_REQUIRED
        if self.certificate:
            try:
                # Without a password, Python would ask the terminal for that of an encrypted key.
                context.load_cert_chain(self.certificate, self.key, password="")
            except (ssl.SSLError, ValueError) as error:
                raise SettingsError(
                    f"MYSQL_SSL_CERT and MYSQL_SSL_KEY name {str(self.certificate)!r} and {str(self.key)!r}, which are "
                    f"not a certificate and its key in PEM, without a password ({error}): fix the files."
                ) from error
        return context


@dataclass(frozen=True)
class MySQLSettings:
    """A MySQL or MariaDB server, the account and the database on it."""

    server: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    tls: TLSSettings = TLSSettings()

    def __str__(self) -> str:
        return f"database {self.database!r} on {self.server}:{self.port}"


@dataclass(frozen=True)
class SQLiteSettings:
    """The embedded default: one SQLite file."""

    filepath: Path

    def __str__(self) -> str:
        return f"SQLite file {self.filepath}"


def connection_variables(environment: Mapping[str, str], connection: str) -> dict[str, str]:
    """Returns the variables with those of a connection in the place of MYSQL_SERVER and its companions.

    Args:
        environment: The variables.
        connection: What the variables of the connection begin with, for example `SHOP` of `SHOP_SERVER`.

    Raises:
        SettingsError: There is no such connection.
    """
    if connection == DEFAULT_CONNECTION:
        return dict(environment)
    server = f"{connection}_SERVER"
    if not environment.get(server):
        raise SettingsError(f"{server} is not set, which the connection {connection} needs: set it to the server.")
    others = {name: value for name, value in environment.items() if not name.startswith(f"{DEFAULT_CONNECTION}_")}
    start = len(connection)
    return others | {
        f"{DEFAULT_CONNECTION}{name[start:]}": value
        for name, value in environment.items()
        if name.startswith(f"{connection}_")
    }


def database_settings(environment: Mapping[str, str]) -> MySQLSettings | SQLiteSettings:
    """Reads where the database is.

    Args:
        environment: The variables, of which `MYSQL_SERVER` decides: with it, `MYSQL_USER`,
            `MYSQL_PASSWORD` (which may be empty) or `MYSQL_PASSWORD_FILE` (a file that holds it), and
            `MYSQL_DATABASE` must be set too and `MYSQL_PORT` may; without it, the database is the file
            `batch.sqlite` in the home folder.

    Raises:
        SettingsError: A variable is missing or has a value that cannot be used.
    """
    if not environment.get("MYSQL_SERVER"):
        return SQLiteSettings(home_folder(environment) / "batch.sqlite")
    # There are accounts without a password, but none without a name.
    unusable = {"MYSQL_USER": (None, ""), "MYSQL_PASSWORD": (None,), "MYSQL_DATABASE": (None, "")}
    found = {**environment, "MYSQL_PASSWORD": secret(environment, "MYSQL_PASSWORD", "MYSQL_PASSWORD_FILE")}
    missing = [name for name, values in unusable.items() if found.get(name) in values]
    if missing:
        raise SettingsError(
            f"MYSQL_SERVER is set to {environment['MYSQL_SERVER']!r}, but {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set: set {'it' if len(missing) == 1 else 'them'} "
            "too, or unset MYSQL_SERVER to use the embedded SQLite file."
        )
    return MySQLSettings(
        server=environment["MYSQL_SERVER"],
        port=_port(environment.get("MYSQL_PORT") or "3306"),
        user=environment["MYSQL_USER"],
        password=found["MYSQL_PASSWORD"] or "",
        database=environment["MYSQL_DATABASE"],
        tls=_tls_settings(environment),
    )


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise SettingsError(f"MYSQL_PORT is {text!r}: set it to a port number from 1 to 65535.")
    return int(text)


def _tls_settings(environment: Mapping[str, str]) -> TLSSettings:
    files: dict[str, Path | None] = {}
    for name in ("MYSQL_SSL_CA", "MYSQL_SSL_CERT", "MYSQL_SSL_KEY"):
        files[name] = Path(environment[name]) if environment.get(name) else None
        file = files[name]
        if file and not file.is_file():
            raise SettingsError(f"{name} names {str(file)!r}, but there is no such file: fix the path.")
    # As MySQL's own clients do: an authority without a mode means that it is to be checked.
    default = "VERIFY_CA" if files["MYSQL_SSL_CA"] else "PREFERRED"
    mode = (environment.get("MYSQL_SSL_MODE") or default).upper()
    if mode not in SSL_MODES:
        raise SettingsError(f"MYSQL_SSL_MODE is {mode!r}: set it to one of {', '.join(SSL_MODES)}.")
    if mode in ("DISABLED", "PREFERRED") and any(files.values()):
        raise SettingsError(
            f"MYSQL_SSL_MODE is {mode}, with which the files of MYSQL_SSL_CA, MYSQL_SSL_CERT and "
            "MYSQL_SSL_KEY would not be used: unset them, or set it to REQUIRED, VERIFY_CA or VERIFY_IDENTITY."
        )
    if mode == "REQUIRED" and files["MYSQL_SSL_CA"]:
        raise SettingsError(
            "MYSQL_SSL_MODE is REQUIRED, with which the server's certificate is not checked against MYSQL_SSL_CA: set "
            "it to VERIFY_CA or VERIFY_IDENTITY, or unset MYSQL_SSL_CA."
        )
    if files["MYSQL_SSL_KEY"] and not files["MYSQL_SSL_CERT"]:
        raise SettingsError(
            "MYSQL_SSL_KEY is set, but MYSQL_SSL_CERT is not: set it to the file of the key's certificate, or unset "
            "MYSQL_SSL_KEY."
        )
    return TLSSettings(mode, files["MYSQL_SSL_CA"], files["MYSQL_SSL_CERT"], files["MYSQL_SSL_KEY"])
