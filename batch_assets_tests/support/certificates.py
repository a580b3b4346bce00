"""Certificates that a server and its clients show, signed by an authority made for the occasion."""

import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from batch_assets_tests.support.servers import PrivateServer

NOW = datetime.datetime.now(datetime.UTC)
SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """Signs certificates, and writes them and their keys as PEM files into a folder.

    Args:
        folder: The folder.
        name: The name of the authority.
        identified: Whether the certificates say which key signed them and what it may sign. Those that MySQL makes for
            itself do not.
    """

    def __init__(self, folder: Path, name: str, *, identified: bool = False) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.identifier = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()) if identified else None
        authority = self._builder(self.name, self.key).add_extension(x509.BasicConstraints(True, None), critical=True)
        if self.identifier:
            authority = authority.add_extension(SIGNS_CERTIFICATES, critical=True)
            authority = authority.add_extension(self.identifier, critical=False)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(authority.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, host: str, password: bytes | None = None) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key)
        names: list[x509.GeneralName] = [x509.DNSName(host)]
        if host[0].isdigit():
            names = [x509.IPAddress(ipaddress.ip_address(host))]
        certificate = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if self.identifier:
            signed_by = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self.identifier)
            certificate = certificate.add_extension(signed_by, critical=False)
        files = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password:
            encryption = serialization.BestAvailableEncryption(password)
        files[0].write_bytes(certificate.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
        return files

    def served_by(self, private: PrivateServer) -> tuple[str, ...]:
        """Gives a server a certificate for its address, not its name; returns the options with which it shows it."""
        for file in (self.file, *self.issue("server", "127.0.0.1")):
            theirs = private.folder / file.name
            theirs.write_bytes(file.read_bytes())
            if os.geteuid() == 0:
                entry = private.folder.stat()
                os.chown(theirs, entry.st_uid, entry.st_gid)
        names = {"ca": self.file.name, "cert": "server.pem", "key": "server.key"}
        return tuple(f"--ssl-{option}={private._inside(private.folder / name)}" for option, name in names.items())

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return x509.CertificateBuilder(
            self.name,
            subject,
            key.public_key(),
            x509.random_serial_number(),
            NOW - datetime.timedelta(days=1),
            NOW + datetime.timedelta(days=1),
        )
