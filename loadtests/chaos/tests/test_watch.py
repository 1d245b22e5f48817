import socket

import psutil

from chaos.system.watch import accepted


def test_accepted_connections__are_those_that_both_ends_keep_open() -> None:
    process = psutil.Process()
    before = accepted(process)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        clients = [socket.create_connection(listening.getsockname()) for _ in range(3)]
        taken = [listening.accept()[0] for _ in clients]
        assert accepted(process) == before + 3
        clients[0].close()
        assert taken[0].recv(1) == b""  # the peer has closed; our end is still open
        assert accepted(process) == before + 2
        for each in (*clients, *taken):
            each.close()
