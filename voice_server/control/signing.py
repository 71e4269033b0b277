"""Signs voice packages with Ed25519, and says whether a signature is good (RFC 8032)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from voice_server.core.errors import ConfigError, Forbidden, RequestError


class Signer:
    """One private key. The same package always gets the same signature."""

    def __init__(self, private_key: bytes) -> None:
        """``private_key``: the 32 bytes of RFC 8032."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._key = Ed25519PrivateKey.from_private_bytes(private_key)
        self.public_key = self._key.public_key().public_bytes_raw().hex()

    @classmethod
    def from_file(cls, path: Path) -> Signer:
        """Read a key of 64 hexadecimal digits. Raises ConfigError."""
        try:
            return cls(bytes.fromhex(path.read_text("ascii").strip()))
        except (OSError, ValueError) as exc:
            raise ConfigError(
                f"{path} › expected an Ed25519 private key of 64 hexadecimal digits ({exc})"
            ) from exc

    def sign(self, meta: bytes) -> dict[str, str]:
        """The content of signature.json for these bytes of meta.json."""
        return {
            "algorithm": "ed25519",
            "public_key": self.public_key,
            "signature": self._key.sign(meta).hex(),
        }


def check_signature(
    meta: bytes, signature: Mapping[str, str] | None, trusted: Collection[str] = ()
) -> None:
    """Raise RequestError for a signature that is wrong; Forbidden, where ``trusted`` public keys
    (hexadecimal) are set, for a package that none of them signed.
    """
    if signature is None:
        if trusted:
            raise Forbidden(
                "this package is not signed, and this server takes signed ones only",
                code="package_not_trusted",
            )
        return
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        if signature["algorithm"] != "ed25519":
            raise ValueError("another algorithm than ed25519")
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature["public_key"]))
        key.verify(bytes.fromhex(signature["signature"]), meta)
    except (InvalidSignature, ValueError) as exc:
        raise RequestError(
            "this voice package cannot be used: its signature does not fit its contents "
            f"({str(exc) or 'they were changed'}); get it again from its author",
            code="bad_signature",
        ) from None
    if trusted and signature["public_key"].lower() not in {key.lower() for key in trusted}:
        raise Forbidden(
            "this package is signed by somebody whom this server does not trust",
            code="package_not_trusted",
        )
