"""The dashboard's files, read and compressed once at start; their path contains a hash of all of them, so browsers
may cache them without limit.

Plots are drawn by uPlot from an installed package. Its files must be the ones this service was tested with.
"""

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from metrics.errors import AssetDamaged

_TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
UPLOT: Final[Mapping[str, str]] = {
    "uplot.iife.min.js": "2d27e8ad3d228164525ce213f9dc716f39b4e3aee0cc773fb3491c96cf4921a2",
    "uplot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
EARLY: Final = "early.js"
_PAGE: Final = "index.html"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, plain and gzipped, and the weak ETag that both share."""

    content_type: str
    body: bytes
    gzipped: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Assets:
    """All files. `version` is a hash of their contents and part of their paths."""

    version: str
    page: Asset
    files: Mapping[str, Asset]


def read_assets(uplot: Mapping[str, str] = UPLOT) -> Assets:
    """Read all files. `uplot` maps the plotting library's files to their SHA-256. Raises AssetDamaged."""
    contents = {**dict(_own()), **dict(_read(uplot))}
    page = contents.pop(_PAGE).decode()
    version = _digest(b"".join(name.encode() + _digest(body).encode() for name, body in sorted(contents.items())))[:16]
    modules = "\n".join(
        f'<link rel="modulepreload" href="/dashboard/{version}/{name}">'
        for name in sorted(contents)
        if name.endswith(".js") and name not in (*uplot, EARLY)
    )
    page = page.replace("<!-- modules -->", modules).replace("{version}", version)
    return Assets(
        version, _asset(_PAGE, page.encode()), {name: _asset(name, contents[name]) for name in sorted(contents)}
    )


def _own() -> Iterator[tuple[str, bytes]]:
    for file in (files("metrics.dashboard") / "static").iterdir():
        yield file.name, file.read_bytes()


def _read(uplot: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    for name, expected in uplot.items():
        body = (files("youplot") / "vendor" / name).read_bytes()
        if _digest(body) != expected:
            raise AssetDamaged(name)
        yield name, body


def _asset(name: str, body: bytes) -> Asset:
    content_type = _TYPES[name[name.rindex(".") :]]
    return Asset(content_type, body, gzip.compress(body, 9, mtime=0), f'W/"{_digest(body)[:32]}"')


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
