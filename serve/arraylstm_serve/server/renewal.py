"""What SIGHUP does: read API keys and certificates again while the server serves."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from arraylstm_serve.errors import StartupError
from arraylstm_serve.http.auth import Keys
from arraylstm_serve.server.config import Config
from arraylstm_serve.server.tls import server_context

logger = logging.getLogger(__name__)


class Renewal:
    """Reads files again. One that cannot be used is logged as an error, and what it said before stays.

    Args:
        files: the files of API keys.
        configs: the settings of the listeners. Connections that are accepted from now on get the certificate read.
    """

    def __init__(self, files: Sequence[Keys], configs: Sequence[Config]) -> None:
        self._files = files
        self._configs = configs

    def __call__(self) -> None:
        """Read every file again, and log what has changed."""
        encrypted = [config for config in self._configs if config.ssl is not None]
        if not self._files and not encrypted:
            logger.warning("SIGHUP: there are no API keys and no certificate to read again")
        for keys in self._files:
            self._renew_keys(keys)
        if encrypted:
            self._renew_certificate(encrypted)

    def _renew_keys(self, keys: Keys) -> None:
        try:
            check_file(keys.source, keys.path)
            logger.info("SIGHUP: %s read again; %s", keys.source, keys.reload())
        except StartupError as error:
            logger.error("SIGHUP: %s The keys stay as they were.", error)  # noqa: TRY400 - the sentence tells all

    def _renew_certificate(self, configs: Sequence[Config]) -> None:
        """Read the certificate, which all listeners have in common."""
        certificate, key = configs[0].tls_files
        try:
            for flag, path in (("--tls-certificate", certificate), ("--tls-key", key)):
                if path is not None:
                    check_file(f"{flag} {path}", path)
            context = server_context(certificate, key)
        except StartupError as error:
            logger.error("SIGHUP: %s The certificate stays as it was.", error)  # noqa: TRY400 - as above
            return
        for config in configs:
            config.ssl = context
        logger.info("SIGHUP: --tls-certificate %s read again; new connections get it", certificate)


def check_file(source: str, path: Path) -> None:
    """Refuse to wait for what a pipe or a device may give some day; the start may wait, a running server must not.

    Raises:
        StartupError: there is something at the path that is not a regular file.
    """
    if path.exists() and not path.is_file():
        raise StartupError(f"{source} cannot be read again: it is not a regular file.")
