"""A service that does nothing: `stub_service.py NAME PORT OPS_PORT FOLDER`.

Files in FOLDER control it:
- NAME.broken: exit at once, with the status in the file or 3
- NAME.unready: answer 503 to readiness probes
- NAME.stubborn: ignore SIGTERM
- NAME.unmigratable: `stub_service.py NAME PORT OPS_PORT FOLDER migrate` fails

It appends its name to FOLDER/stopped and FOLDER/migrated.
"""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

name, port, ops_port, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if (folder / f"{name}.unready").exists() else 200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


def note(file: str) -> None:
    with (folder / file).open("a") as notes:
        notes.write(f"{name}\n")


def end(*_: object) -> None:
    note("stopped")
    if (folder / f"{name}.stubborn").exists():
        print(json.dumps({"event": "stays"}), flush=True)
    else:
        os._exit(0)


def main() -> int:
    if sys.argv[5:] == ["migrate"]:
        note("migrated")
        if (folder / f"{name}.unmigratable").exists():
            print("cannot migrate as ordered")
            return 1
        return 0
    if (folder / f"{name}.broken").exists():
        print("broken as ordered")
        return int((folder / f"{name}.broken").read_text() or 3)
    (folder / f"{name}.environment").write_text(json.dumps(dict(os.environ)))
    signal.signal(signal.SIGTERM, end)
    with HTTPServer(("127.0.0.1", ops_port), Ready) as server:
        server.serve_forever()
    return 0


sys.exit(main())
