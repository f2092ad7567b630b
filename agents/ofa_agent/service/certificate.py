"""Say what is wrong with a certificate or a key; gRPC only refuses the port."""

import ssl


class BadCertificate(ValueError):
    """A certificate or key that cannot be served with; the message names the file and the reason."""


def check(certificate_path: str, key_path: str) -> None:
    """Raises BadCertificate, OSError."""
    with open(certificate_path, "rb") as file:
        certificate = file.read().decode("ascii", "replace")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificate)
    except (ssl.SSLError, ValueError):
        raise BadCertificate("%s is not a certificate in PEM format" % certificate_path) from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate_path, key_path, password=lambda: _no_password(key_path))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise BadCertificate(
                "the key %s does not belong to the certificate %s" % (key_path, certificate_path)
            ) from None
        if error.reason and error.reason.endswith(("TOO_SMALL", "TOO_WEAK")):
            raise BadCertificate("%s is too weak: %s" % (certificate_path, error.reason)) from None
        raise BadCertificate("%s is not a private key in PEM format" % key_path) from None


def _no_password(key_path: str) -> str:
    raise BadCertificate("the key %s has a passphrase; remove it with openssl pkey" % key_path)
