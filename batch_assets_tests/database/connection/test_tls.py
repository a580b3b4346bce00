"""TLS to a real server that takes no connection without it, with an authority made for the occasion."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from batch_assets.database.connection.engine import engine_for
from batch_assets.errors import DatabaseError, SettingsError
from batch_assets.settings.database import database_settings
from batch_assets_tests.support.certificates import Authority
from batch_assets_tests.support.servers import PrivateServer

pytestmark = pytest.mark.xdist_group("tls")


@dataclass
class Secured:
    private: PrivateServer
    authority: Authority
    other: Authority

    def connect(self, **environment: str) -> tuple[str, str]:
        """Connects as the environment says; the cipher of the session and its user."""
        server = self.private.server
        engine = engine_for(database_settings({**server.environment("mysql"), **environment}))
        try:
            with engine.connect() as connection:
                cipher = connection.execute(sa.text("SHOW STATUS LIKE 'Ssl_cipher'")).one()[1]
                return str(cipher), str(connection.execute(sa.text("SELECT CURRENT_USER()")).scalar_one())
        finally:
            engine.dispose()

    def refusal(self, **environment: str) -> str:
        with pytest.raises(DatabaseError) as caught:
            self.connect(**environment)
        assert not caught.value.transient
        assert self.private.server.password not in str(caught.value)
        return str(caught.value)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("certificates")
    authority, other = Authority(folder, "our authority"), Authority(folder, "another authority")
    private = PrivateServer()
    private.options = ("--require-secure-transport=ON", *authority.served_by(private))
    with private:
        yield Secured(private, authority, other)


def test_the_right_authority_and_the_right_name_connect_encrypted(secured: Secured) -> None:
    trusted = {"MYSQL_SSL_CA": str(secured.authority.file)}
    for environment in (trusted, {**trusted, "MYSQL_SSL_MODE": "VERIFY_IDENTITY"}):
        cipher, user = secured.connect(**environment)
        assert cipher.startswith("TLS_")
        assert user.startswith("batch@")


def test_required_and_preferred_encrypt_without_checking(secured: Secured) -> None:
    for mode in ("REQUIRED", "PREFERRED", ""):
        assert secured.connect(MYSQL_SSL_MODE=mode)[0].startswith("TLS_")


@pytest.mark.parametrize("mode", ["VERIFY_CA", "VERIFY_IDENTITY"])
def test_a_server_of_another_authority_is_refused(mode: str, secured: Secured) -> None:
    for authority in ({"MYSQL_SSL_CA": str(secured.other.file)}, {}):  # {}: those that the machine trusts
        sentence = secured.refusal(MYSQL_SSL_MODE=mode, **authority)
        assert sentence.startswith(f"No trusted connection to 127.0.0.1:{secured.private.port} (")
        assert "certificate verify failed" in sentence
        assert f"fix MYSQL_SSL_MODE (now {mode}), MYSQL_SSL_CA, MYSQL_SSL_CERT or MYSQL_SSL_KEY." in sentence


def test_a_server_of_another_name_is_refused_where_the_name_counts(secured: Secured) -> None:
    named = {"MYSQL_SERVER": "localhost", "MYSQL_SSL_CA": str(secured.authority.file)}
    assert secured.connect(**named)[0].startswith("TLS_")
    sentence = secured.refusal(**named, MYSQL_SSL_MODE="VERIFY_IDENTITY")
    assert "No trusted connection to localhost:" in sentence
    assert "certificate is not valid for 'localhost'" in sentence


def test_no_encryption_is_refused_by_the_server_and_the_sentence_says_what_to_set(secured: Secured) -> None:
    assert "MYSQL_SSL_MODE" in secured.refusal(MYSQL_SSL_MODE="DISABLED")


def test_an_account_that_asks_for_a_certificate_is_given_the_one_of_the_environment(secured: Secured) -> None:
    server = secured.private.server
    # `execute` of the tests encrypts where the server offers it.
    server.execute("CREATE USER IF NOT EXISTS 'certified'@'%' IDENTIFIED BY 'Secret-pa55' REQUIRE X509")
    server.execute("GRANT ALL ON *.* TO 'certified'@'%'")
    account = {"MYSQL_USER": "certified", "MYSQL_PASSWORD": "Secret-pa55", "MYSQL_SSL_MODE": "REQUIRED"}
    certificate, key = secured.authority.issue("client", "client.example.com")
    cipher, user = secured.connect(**account, MYSQL_SSL_CERT=str(certificate), MYSQL_SSL_KEY=str(key))
    assert cipher.startswith("TLS_")
    assert user == "certified@%"
    # One file may hold both.
    both = certificate.with_name("both.pem")
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    assert secured.connect(**account, MYSQL_SSL_CERT=str(both))[1] == "certified@%"
    sentence = secured.refusal(**account)
    assert "refuses user 'certified'" in sentence
    assert "MYSQL_SSL_CERT and MYSQL_SSL_KEY if it demands encryption or a certificate" in sentence
    assert "Secret-pa55" not in sentence


def test_a_key_that_is_not_that_of_the_certificate_or_is_locked_is_refused(secured: Secured) -> None:
    certificate, _ = secured.authority.issue("first", "client.example.com")
    _, other_key = secured.authority.issue("second", "client.example.com")
    locked = secured.authority.issue("locked", "client.example.com", password=b"tiramisu")
    for cert, key in [(certificate, other_key), locked]:
        with pytest.raises(SettingsError, match="not a certificate and its key in PEM, without a password"):
            secured.connect(MYSQL_SSL_MODE="REQUIRED", MYSQL_SSL_CERT=str(cert), MYSQL_SSL_KEY=str(key))


@pytest.mark.server
@pytest.mark.parametrize("mode", ["REQUIRED", "VERIFY_CA"])
def test_a_server_that_does_not_encrypt_is_refused_where_encryption_is_required(mode: str) -> None:
    private = PrivateServer()
    private.options = ("--disable-ssl",) if private._is_mariadb else ("--tls-version=",)
    with private:
        environment = {**private.server.environment("mysql"), "MYSQL_SSL_MODE": mode}
        with pytest.raises(DatabaseError, match=r"No trusted connection to .*SSL is required but the server") as caught:
            engine_for(database_settings(environment)).connect()
        assert not caught.value.transient
