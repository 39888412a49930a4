"""Whom a TLS connection trusts and how it shows itself: the machine's settings, or a model's own files."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache

from pinnacle.base.errors import ModelUnavailable

VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")

Certificate = str | tuple[str, str]
"""A PEM file with a certificate and its key, or a file for each."""


def tls_context(ca_file: str | None, certificate: Certificate | None) -> ssl.SSLContext:
    """One context for equal settings, so that connections are shared.

    ``ca_file``: the only authorities trusted; else those of SSL_CERT_FILE or SSL_CERT_DIR, else the machine's.
    ``certificate``: what the client shows of itself. ModelUnavailable, naming it, for a file that cannot be used.
    """
    file, folder = (os.environ.get(name) or None for name in VARIABLES)
    if ca_file is not None:
        file, folder = ca_file, None
    return _context(file, None if file else folder, certificate)


@lru_cache(maxsize=32)
def _context(ca_file: str | None, ca_folder: str | None, certificate: Certificate | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file, capath=ca_folder)
    except OSError as error:  # ssl.SSLError is one
        raise ModelUnavailable(
            f"no certificate authorities can be read of {ca_file or ca_folder!r}: {error}"
        ) from error
    if certificate is not None:
        file, key = (certificate, None) if isinstance(certificate, str) else certificate
        try:
            context.load_cert_chain(file, key, password="")  # without one a locked key would ask on the terminal
        except OSError as error:
            raise ModelUnavailable(
                f"the client certificate {file!r} cannot be used: {error}; it is a PEM file "
                "with certificate and key, or one for each, and the key is not locked by a password"
            ) from error
    return context
