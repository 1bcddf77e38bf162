"""Agreeing on secrets in the open: Diffie-Hellman, key derivation and wrapped transfer secrets.

Everything that starts a job on a Ray cluster can be read by whoever may read the dashboard:
entry points, environments and logs. So only public keys go there. The standard library has no
cipher, but it has ``pow``, HMAC and a good source of random bytes, which is enough to agree on a
key and to hide 32 bytes under a pad that is used once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Tuple

# RFC 7919, appendix A.1, ffdhe2048: a safe prime, so no small subgroups but {1, -1}.
FFDHE2048_PRIME = int(
    "FFFFFFFFFFFFFFFFADF85458A2BB4A9AAFDC5620273D3CF1D8B9C583CE2D3695"
    "A9E13641146433FBCC939DCE249B3EF97D2FE363630C75D8F681B202AEC4617A"
    "D3DF1ED5D5FD65612433F51F5F066ED0856365553DED1AF3B557135E7F57C935"
    "984F0C70E0E68B77E2A689DAF3EFE8721DF158A136ADE73530ACCA4F483A797A"
    "BC0AB182B324FB61D108A94BB2C8E3FBB96ADAB760D7F4681D4F42A3DE394DF4"
    "AE56EDE76372BB190B07A7C8EE0A6D709E02FCE1CDF7E2ECC03404CD28342F61"
    "9172FE9CE98583FF8E4F1232EEF28183C3FE3B1B4C6FAD733BB5FCBC2EC22005"
    "C58EF1837D1683B2C6F34A26C1B2EFFA886B423861285C97FFFFFFFFFFFFFFFF",
    16,
)
FFDHE2048_GENERATOR = 2
# RFC 7919, section 5.2, asks for 225 bits or more with this group.
EXPONENT_BITS = 256
SECRET_BYTES = 32
_NONCE_BYTES = 16


def new_private_key() -> int:
    """A fresh private exponent of ``EXPONENT_BITS`` bits, its top bit set."""
    return secrets.randbits(EXPONENT_BITS) | (1 << (EXPONENT_BITS - 1))


def public_key(private: int) -> int:
    """The public key that belongs to a private one."""
    return pow(FFDHE2048_GENERATOR, private, FFDHE2048_PRIME)


def agree(private: int, other_public: int, context: bytes) -> bytes:
    """The key that both sides derive from their own private and the other's public key.

    Args:
        private: Own private exponent.
        other_public: The other side's public key.
        context: What the key is for; both sides name the same, other contexts give other keys.

    Raises:
        ValueError: The public key is none of the group's (0, 1, p-1 or beyond).
    """
    if not 1 < other_public < FFDHE2048_PRIME - 1:
        raise ValueError("a public key outside its group")
    shared = pow(other_public, private, FFDHE2048_PRIME)
    return derive(shared.to_bytes(256, "big"), b"castray key agreement", context)


def derive(material: bytes, salt: bytes, context: bytes) -> bytes:
    """32 bytes by HKDF (RFC 5869) with SHA-256."""
    extracted = hmac.new(salt, material, hashlib.sha256).digest()
    return hmac.new(extracted, context + b"\x01", hashlib.sha256).digest()


def fingerprint(public: int) -> str:
    """A short name of a public key, 12 hex digits; for job names, not for trust."""
    return hashlib.sha256(public.to_bytes(256, "big")).hexdigest()[:12]


def wrap(key: bytes, secret: bytes) -> str:
    """A transfer's secret, hidden under a pad that only holders of ``key`` can make; hex."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return (nonce + _padded(key, nonce, secret)).hex()


def unwrap(key: bytes, wrapped: str) -> bytes:
    """The secret that ``wrap`` hid.

    Raises:
        ValueError: No hex, or of the wrong length.
    """
    nonce, hidden = _split(bytes.fromhex(wrapped))
    return _padded(key, nonce, hidden)


def _split(data: bytes) -> Tuple[bytes, bytes]:
    if len(data) != _NONCE_BYTES + SECRET_BYTES:
        raise ValueError("a wrapped secret of the wrong length")
    return data[:_NONCE_BYTES], data[_NONCE_BYTES:]


def _padded(key: bytes, nonce: bytes, data: bytes) -> bytes:
    pad = hmac.new(key, b"castray wrapped secret" + nonce, hashlib.sha256).digest()
    return bytes(left ^ right for left, right in zip(pad, data))  # noqa: B905  (3.8)
