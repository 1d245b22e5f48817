"""As whom PostgreSQL runs: it refuses uid 0, so root steps down; an ordinary user stays who he is."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Identity:
    """How to start a program as somebody: a command prefix, the uid that owns its files, and Popen's uid switch."""

    prefix: tuple[str, ...]
    uid: int
    gid: int
    switches: bool = False

    @property
    def user(self) -> int | None:
        return self.uid if self.switches else None

    @property
    def group(self) -> int | None:
        return self.gid if self.switches else None

    @property
    def extra_groups(self) -> tuple[int, ...] | None:
        return () if self.switches else None


class NoIdentityError(Exception):
    """Root found no way to run PostgreSQL unprivileged; the message carries the cure."""


def unprivileged(folder: Path, program: Path) -> Identity:
    """The first identity that may write to `folder` and run `program`; it owns `folder` afterwards."""
    for identity in _candidates():
        if os.geteuid() == 0:
            os.chown(folder, identity.uid, identity.gid)
        if _fits(identity, folder, program):
            return identity
    raise NoIdentityError(
        f"{program} cannot be run with its data in {folder}. As root: use an ordinary user, "
        "move the checkout out of a private folder such as /root, or set DATABASE_URL."
    )


def give(path: Path, identity: Identity) -> None:
    """Hand a file, or a folder with all in it, to the identity's uid; only root has a reason and the right to.

    No link is followed, nor is a folder that was put in another's place: the identity owns what is around them, and
    would be given whatever it likes.
    """
    if os.geteuid() != 0 or path.lstat().st_uid == identity.uid:
        return
    os.chown(path, identity.uid, identity.gid, follow_symlinks=False)
    for _, folders, files, opened in os.fwalk(path):
        for name in (*folders, *files):
            os.chown(name, identity.uid, identity.gid, dir_fd=opened, follow_symlinks=False)


def _candidates() -> Iterator[Identity]:
    if os.geteuid() != 0:
        yield Identity((), os.geteuid(), os.getegid())
        return
    nobody = pwd.getpwnam("nobody")
    uid, gid = nobody.pw_uid, nobody.pw_gid
    yield Identity((), uid, gid, switches=True)
    if shutil.which("unshare"):  # into a folder closed to `nobody`, such as /root: root that sees itself as `nobody`
        yield Identity(("unshare", "--user", f"--map-user={uid}", f"--map-group={gid}"), 0, 0)


def _fits(identity: Identity, folder: Path, program: Path) -> bool:
    script = 'test -w "$1" && test -x "$1" && exec "$2" --version'
    try:
        tried = subprocess.run(
            [*identity.prefix, "sh", "-c", script, "sh", str(folder), str(program)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            user=identity.user,
            group=identity.group,
            extra_groups=identity.extra_groups,
        )
    except OSError:
        return False
    return tried.returncode == 0
