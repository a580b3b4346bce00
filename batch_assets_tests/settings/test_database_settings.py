import re
import ssl
from pathlib import Path

import pytest

from batch_assets.database.connection.engine import engine_for, engine_from_url
from batch_assets.errors import SettingsError
from batch_assets.settings.database import SSL_MODES, MySQLSettings, SQLiteSettings, TLSSettings, database_settings
from batch_assets.settings.folders import home_folder, root_folder

SERVER = {"MYSQL_SERVER": "db", "MYSQL_USER": "me", "MYSQL_PASSWORD": "tiramisu", "MYSQL_DATABASE": "service"}


def settings(**changes: str) -> MySQLSettings:
    found = database_settings({**SERVER, **changes})
    assert isinstance(found, MySQLSettings)
    return found


def refusal(environment: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        database_settings(environment)
    return str(caught.value)


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    file = tmp_path / "some.pem"
    file.write_text("")
    return file


# Where


@pytest.mark.parametrize("server", [{}, {"MYSQL_SERVER": ""}])
def test_no_server_is_the_embedded_file_in_the_home_folder(server: dict[str, str], tmp_path: Path) -> None:
    # The rest of the account alone, as a service's container may have it, names no server.
    rest = {"MYSQL_USER": "me", "MYSQL_PORT": "no port"}
    assert database_settings(server | rest) == SQLiteSettings(root_folder() / ".batch_assets" / "batch.sqlite")
    home = {"BATCH_ASSETS_HOME": str(tmp_path / "home")}
    assert database_settings(server | home) == SQLiteSettings(tmp_path / "home" / "batch.sqlite")
    assert not (tmp_path / "home").exists()


def test_home_folder_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert home_folder({"BATCH_ASSETS_HOME": "here"}) == tmp_path / "here"
    assert home_folder({"BATCH_ASSETS_HOME": ""}) == root_folder() / ".batch_assets"


def test_a_server_has_an_account_and_a_database() -> None:
    assert settings() == MySQLSettings("db", 3306, "me", "tiramisu", "service", TLSSettings("PREFERRED"))
    assert settings(MYSQL_PORT="3307").port == 3307
    assert settings(MYSQL_PORT="").port == 3306
    assert settings(MYSQL_PASSWORD="").password == ""
    assert str(settings()) == "database 'service' on db:3306"


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (["MYSQL_USER"], "MYSQL_USER is not set: set it too"),
        (["MYSQL_PASSWORD"], "MYSQL_PASSWORD is not set: set it too"),
        (["MYSQL_DATABASE"], "MYSQL_DATABASE is not set: set it too"),
        (["MYSQL_USER", "MYSQL_DATABASE"], "MYSQL_USER and MYSQL_DATABASE are not set: set them too"),
    ],
)
def test_what_is_missing_beside_a_server_is_named(missing: list[str], words: str) -> None:
    found = {name: value for name, value in SERVER.items() if name not in missing}
    sentence = f"MYSQL_SERVER is set to 'db', but {words}, or unset MYSQL_SERVER to use the embedded SQLite file."
    assert refusal(found) == sentence


@pytest.mark.parametrize("name", ["MYSQL_USER", "MYSQL_DATABASE"])
def test_an_empty_name_is_missing(name: str) -> None:
    assert f"but {name} is not set" in refusal({**SERVER, name: ""})


# The password in a file


def in_file(file: Path) -> dict[str, str]:
    return {name: value for name, value in SERVER.items() if name != "MYSQL_PASSWORD"} | {
        "MYSQL_PASSWORD_FILE": str(file)
    }


@pytest.mark.parametrize(
    ("written", "password"), [("tiramisu\n", "tiramisu"), ("tira misu", "tira misu"), (" é\n\n", " é"), ("", "")]
)
def test_a_file_may_hold_the_password_with_a_line_break_at_its_end(written: str, password: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(written, "utf-8")
    for environment in (in_file(file), in_file(file) | {"MYSQL_PASSWORD": ""}):
        assert database_settings(environment) == MySQLSettings("db", 3306, "me", password, "service")


def test_a_password_and_a_file_of_one_are_one_too_many(pem: Path) -> None:
    assert refusal({**SERVER, "MYSQL_PASSWORD_FILE": str(pem)}) == (
        "MYSQL_PASSWORD and MYSQL_PASSWORD_FILE are both set: unset one of them."
    )


def test_a_file_of_the_password_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        assert refusal(in_file(path)) == (
            f"MYSQL_PASSWORD_FILE names {str(path)!r}, which cannot be read ({reason}): fix the path, or let this "
            "account read the file."
        )


def test_a_file_of_the_password_that_is_not_text_is_named_without_what_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"tiramisu\xff")
    with pytest.raises(SettingsError, match="which is not text in UTF-8") as caught:
        database_settings(in_file(file))
    assert "tiramisu" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("port", ["0", "65536", "-1", "3306.0", "mysql", " 3306", "1e3", "²"])
def test_a_port_is_a_number_from_1_to_65535(port: str) -> None:
    assert refusal({**SERVER, "MYSQL_PORT": port}) == (
        f"MYSQL_PORT is {port!r}: set it to a port number from 1 to 65535."
    )


# TLS


@pytest.mark.parametrize("mode", SSL_MODES)
def test_modes_are_those_of_mysqls_own_clients_in_any_case(mode: str) -> None:
    assert settings(MYSQL_SSL_MODE=mode).tls == TLSSettings(mode)
    assert settings(MYSQL_SSL_MODE=mode.lower()).tls == TLSSettings(mode)
    assert settings(MYSQL_SSL_MODE="").tls == TLSSettings("PREFERRED")


def test_an_unknown_mode_is_refused_with_those_that_there_are() -> None:
    assert refusal({**SERVER, "MYSQL_SSL_MODE": "true"}) == (
        "MYSQL_SSL_MODE is 'TRUE': set it to one of DISABLED, PREFERRED, REQUIRED, VERIFY_CA, VERIFY_IDENTITY."
    )


def test_an_authority_is_there_to_be_checked(pem: Path) -> None:
    assert settings(MYSQL_SSL_CA=str(pem)).tls == TLSSettings("VERIFY_CA", pem)
    assert settings(MYSQL_SSL_CA=str(pem), MYSQL_SSL_MODE="VERIFY_IDENTITY").tls == TLSSettings("VERIFY_IDENTITY", pem)
    assert "is not checked against MYSQL_SSL_CA" in refusal(
        {**SERVER, "MYSQL_SSL_CA": str(pem), "MYSQL_SSL_MODE": "REQUIRED"}
    )


@pytest.mark.parametrize("mode", ["DISABLED", "PREFERRED", ""])
@pytest.mark.parametrize("name", ["MYSQL_SSL_CERT", "MYSQL_SSL_KEY"])
def test_files_that_a_mode_does_not_use_are_refused(mode: str, name: str, pem: Path) -> None:
    sentence = refusal({**SERVER, "MYSQL_SSL_MODE": mode, name: str(pem)})
    assert sentence.startswith(f"MYSQL_SSL_MODE is {mode or 'PREFERRED'}, with which the files of ")


def test_a_certificate_goes_with_its_key_or_holds_it(pem: Path) -> None:
    required = {"MYSQL_SSL_MODE": "REQUIRED"}
    assert settings(**required, MYSQL_SSL_CERT=str(pem)).tls == TLSSettings("REQUIRED", None, pem)
    assert settings(**required, MYSQL_SSL_CERT=str(pem), MYSQL_SSL_KEY=str(pem)).tls.key == pem
    sentence = refusal({**SERVER, **required, "MYSQL_SSL_KEY": str(pem)})
    assert sentence.startswith("MYSQL_SSL_KEY is set, but MYSQL_SSL_CERT is not: ")


@pytest.mark.parametrize("name", ["MYSQL_SSL_CA", "MYSQL_SSL_CERT", "MYSQL_SSL_KEY"])
def test_a_file_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    for path in (tmp_path / "none.pem", tmp_path):
        environment = {**SERVER, "MYSQL_SSL_MODE": "VERIFY_CA", name: str(path)}
        assert refusal(environment) == f"{name} names {str(path)!r}, but there is no such file: fix the path."


def test_files_that_are_not_pem_are_named(pem: Path) -> None:
    pem.write_text("no certificate")
    with pytest.raises(SettingsError, match=f"MYSQL_SSL_CA names '{re.escape(str(pem))}', which holds no certificate"):
        engine_for(settings(MYSQL_SSL_CA=str(pem)))
    with pytest.raises(SettingsError, match="which are not a certificate and its key in PEM"):
        engine_for(settings(MYSQL_SSL_MODE="REQUIRED", MYSQL_SSL_CERT=str(pem)))


@pytest.mark.parametrize(
    ("mode", "checked", "host_checked"),
    [
        ("REQUIRED", ssl.CERT_NONE, False),
        ("VERIFY_CA", ssl.CERT_REQUIRED, False),
        ("VERIFY_IDENTITY", ssl.CERT_REQUIRED, True),
    ],
)
def test_what_each_mode_checks(mode: str, checked: ssl.VerifyMode, host_checked: bool) -> None:
    context = TLSSettings(mode).context()
    assert (context.verify_mode, context.check_hostname) == (checked, host_checked)


# What must not be said


def test_the_password_is_nowhere_to_be_read() -> None:
    found = settings()
    engine = engine_for(found)
    for text in (repr(found), str(found), f"{found}", repr(engine), str(engine.url)):
        assert "tiramisu" not in text
    assert engine.url.password == "tiramisu"


@pytest.mark.parametrize(
    "url", ["mysql://me:tiramisu@db", "postgresql://me:tiramisu@db/x", "mysql//me:tiramisu@db", "sqlite://"]
)
def test_the_password_is_not_in_the_refusal_of_a_url(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        engine_from_url(url)
    assert "tiramisu" not in str(caught.value)
    assert "mysql://user:password@server:3306/database" in str(caught.value)
