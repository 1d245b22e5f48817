"""The embedded Valkey: its password, its durability, its single instance."""

import os
from collections.abc import Callable
from pathlib import Path

from launcher.processes import command_of
from launcher.valkey import Valkey


def test_wrong_password__is_refused(own_valkey: Callable[..., Valkey]) -> None:
    server = own_valkey()
    (server.state / "password").write_text("wrong")
    assert server.execute("PING").startswith("-WRONGPASS")


def test_password__is_not_in_the_command_line_or_a_readable_file(own_valkey: Callable[..., Valkey]) -> None:
    server = own_valkey()
    assert server.process is not None
    command = command_of(server.process.pid)
    assert str(server.state) in command
    assert server.password not in command
    assert (server.state / "valkey.conf").stat().st_mode & 0o777 == 0o600
    assert (server.state / "password").stat().st_mode & 0o777 == 0o600


def test_second_server__on_the_same_folder__stops_the_first(tmp_path: Path, own_valkey: Callable[..., Valkey]) -> None:
    first = own_valkey(appendonly="yes")
    first.execute("SET", "kept", "yes")
    second = Valkey(first.state, first.port, settings={"appendonly": "yes"})
    try:
        second.start()
        assert second.execute("EXISTS", "kept") == ":1"
        assert not first.is_running
    finally:
        second.kill()


def test_reused_pid__is_ignored(own_valkey: Callable[..., Valkey]) -> None:
    server = own_valkey()
    server.stop()
    (server.state / "pid").write_text(str(os.getpid()))
    server.start()
    assert server.execute("PING") == "+PONG"
