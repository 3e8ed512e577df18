"""Certificates of servers and clients that tests start: an authority of their own, in files as the servers want them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509 import load_pem_x509_certificate

PASSWORD: Final = "changeit"  # Java reads no store without one


@dataclass(frozen=True)
class Identity:
    """PEM texts, the key in PKCS#8, which Java wants."""

    certificate: str
    key: str

    def encrypted_key(self, password: str) -> str:
        key = serialization.load_pem_private_key(self.key.encode(), None)
        how = serialization.BestAvailableEncryption(password.encode())
        return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how).decode()

    def pkcs12(self) -> bytes:
        key = serialization.load_pem_private_key(self.key.encode(), None)
        certificate = load_pem_x509_certificate(self.certificate.encode())
        how = serialization.BestAvailableEncryption(PASSWORD.encode())
        return pkcs12.serialize_key_and_certificates(b"server", key, certificate, None, how)  # type: ignore[arg-type]


class Authority:
    """Files of one server, for 127.0.0.1, and who has signed it; all in a directory."""

    def __init__(self, directory: Path) -> None:
        self._authority = trustme.CA()
        self.certificate = self._authority.cert_pem.bytes().decode()
        server = self.identity("127.0.0.1")
        texts = {"authority": self.certificate, "certificate": server.certificate, "key": server.key}
        for name, text in (texts | {"both": server.key + server.certificate}).items():
            (directory / f"{name}.pem").write_text(text)
        (directory / "server.p12").write_bytes(server.pkcs12())
        for path in directory.iterdir():
            path.chmod(0o644)  # some servers have users of their own
        self.authority_path = directory / "authority.pem"
        self.certificate_path = directory / "certificate.pem"
        self.key_path = directory / "key.pem"
        self.both_path = directory / "both.pem"
        self.store_path = directory / "server.p12"

    def identity(self, name: str) -> Identity:
        """Of a host or an address, or of a client."""
        issued = self._authority.issue_cert(name)
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Identity(issued.cert_chain_pems[0].bytes().decode(), text.decode())
