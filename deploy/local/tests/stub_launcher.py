"""Stub services under the real launcher: `stub_launcher.py STATE FOLDER PORT_BASE NAME...`; the first is the front."""

import os
import sys
from pathlib import Path

from launcher.app import System, run
from launcher.keeper import Patience, StartError
from launcher.logs import Console
from launcher.server import StoreError
from launcher.services import Service, SettingError
from launcher.state import StateError

state, folder, base, names = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:]
STUB = str(Path(__file__).with_name("stub_service.py"))


def stub(place: int, name: str) -> Service:
    ports = (base + 2 * place, base + 2 * place + 1)
    argv = (sys.executable, STUB, name, *map(str, ports), folder)
    return Service(
        name,
        argv,
        *ports,
        named_in=(f"{name.upper()}_URL",),
        migration=(*argv, "migrate"),
        sources=(Path(folder) / "sources" / name,),
        is_front=place == 0,
    )


patience = Patience(first_restart_s=0.05, longest_restart_s=0.4, ready_s=float(os.environ.get("STUB_READY_S", "60")))
system = System(tuple(stub(place, name) for place, name in enumerate(names)), os.environ, state, patience)
try:
    run(system, Console(), reloads="STUB_RELOADS" in os.environ)
except (SettingError, StateError, StartError, StoreError) as error:
    sys.exit(str(error))
