#!/usr/bin/env python3
"""Exit with 0 if the service of this container is ready, by its ops port."""

import http.client
import os
import sys

SERVICES = ("edge-limiter", "inference", "metrics", "analyst")
TIMEOUT_S = 4


def ops_port(environ: os._Environ[str]) -> int:
    """Return the port that the service's settings give."""
    service = environ["SERVICE"]
    prefix = service.partition("-")[0].upper()
    base = int(environ.get("SLUICE_PORT_BASE") or 8000)
    return int(environ.get(f"{prefix}_OPS_PORT") or base + 1000 + SERVICES.index(service))


def is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not is_ready(ops_port(os.environ)))
