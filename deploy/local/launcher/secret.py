"""Secrets that are generated once and kept in a file of their own, readable by their owner only."""

import os
import secrets
from pathlib import Path


def kept_secret(path: Path) -> str:
    """The secret in `path`; made on the first call, whole or not at all even if the power fails."""
    if not path.exists():
        draft = path.with_name(f".{path.name}.new")
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(24))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    return path.read_text()
