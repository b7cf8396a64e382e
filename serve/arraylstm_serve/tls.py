"""The server's certificate and its key."""

from __future__ import annotations

import ssl
from pathlib import Path

from arraylstm_serve.errors import StartupError, cause


def server_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """What connections are encrypted with; None where there is no certificate.

    Args:
        certificate: a PEM file, perhaps with the key in it.
        key: a PEM file of the key alone.

    Raises:
        StartupError: the files cannot be used, or there is a key without a certificate.
    """
    if certificate is None:
        if key is not None:
            raise StartupError("--tls-key is given without --tls-certificate; give both, or neither.")
        return None
    named = f"--tls-certificate {certificate}" + (f" with --tls-key {key}" if key else "")

    def refuse_to_ask() -> str:
        """Without this OpenSSL asks the terminal for the password, and a server without one waits for ever."""
        raise StartupError(
            f"{named} cannot be used: the key is encrypted and there is nobody to ask for its password; give as "
            f"--tls-key what `openssl pkey -in {key or certificate} -out KEY` writes."
        )

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, refuse_to_ask)
    except OSError as error:  # ssl.SSLError among them
        raise StartupError(f"{named} cannot be used: {cause(error)}.") from error
    return context
