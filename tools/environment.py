"""Makes the virtual environments that the Makefile works in, from the standard library alone.

An environment holds the wheel built from this checkout, never `src/` itself, so that what runs and
what is tested is what a user installs::

    python tools/environment.py prepare demo            .venv with the wheel and the extra `scikit-learn`
    python tools/environment.py prepare dev             the same, with the extras in use and every tool
    python tools/environment.py prepare bench           .venv-bench with the wheel and the frameworks beside it
    python tools/environment.py pythons [-- ARGUMENTS]  the quick tests on each Python found here

`prepare` leaves a stamp in the environment that says what it was made from. While the stamp is true
there is nothing to do; when only sources have changed, the wheel is rebuilt and replaced; in every
other case (another Python, other dependencies, a moved checkout, a run that was interrupted: the
stamp is away while packages are being installed) the environment is made anew.
"""

# No syntax and no module newer than Python 3.6 before the functions run: an old Python must get as
# far as the sentence that says it is too old.
import argparse
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

if sys.version_info < (3, 11):  # noqa: UP036 - this is where that minimum is enforced
    sys.stderr.write(
        f"error: chainrule needs Python 3.11 or newer and this is {sys.version.split()[0]}; name a "
        "newer one, for example: make demo PYTHON=python3.12\n"
    )
    sys.exit(2)

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "requirements" / "dev.txt"
BENCH_PINS = ROOT / "requirements" / "bench.txt"
STAMP_NAME = "chainrule-stamp.json"
SUPPORTED_PYTHONS = ("3.11", "3.12", "3.13")

# From small to large: each one holds everything of those before it.
LADDER = ("demo", "dev")
# The benchmarks' frameworks are gigabytes and have demands of their own: an environment beside the others.
PROFILES = (*LADDER, "bench")
EXTRAS_OF_PROFILE = {"demo": "[scikit-learn]", "dev": "[scikit-learn,pillow,tensorboard]", "bench": ""}
FOLDER_OF_PROFILE = {"demo": ".venv", "dev": ".venv", "bench": ".venv-bench"}

# The interpreter under this one, which stays when the environment that runs this is made anew.
BASE_PYTHON = Path(getattr(sys, "_base_executable", sys.executable))


Command = list[str | Path]


class EnvironmentProblem(Exception):
    """What is wrong, and what to do about it, in one sentence; `status` is the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class Stamp(NamedTuple):
    """What an environment was made from."""

    foundation: str  # fingerprint of the Python, the place, the pins and the dependencies
    profile: str  # one of PROFILES; empty as long as nothing is installed
    package: str  # fingerprint of what the wheel was built from; empty without a wheel


def say(text: str) -> None:
    """Print one line at once, in order with what the programs started from here print."""
    print(text, flush=True)


# --- Fingerprints --------------------------------------------------------------------------------


def fingerprint_of_package(root: Path) -> str:
    """Hash of the names and contents of all files that the wheel is built from."""
    sources = sorted(path for path in (root / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    about = [root / name for name in ("pyproject.toml", "README.md", "LICENSE")]
    digest = hashlib.sha256()
    for path in [*about, *sources]:
        if path.exists():
            digest.update(path.relative_to(root).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def pins_of(profile: str) -> Path:
    """The file with the exact versions of what a profile holds."""
    return BENCH_PINS if profile == "bench" else PINS


def fingerprint_of_foundation(folder: Path, profile: str) -> str:
    """Hash of everything whose change asks for an environment made from nothing."""
    import tomllib  # not at the top: an old Python has none

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    parts = [
        sys.version,
        sys.base_prefix,
        str(folder),  # installed commands name their interpreter by its full path
        pins_of(profile).read_text(encoding="utf-8"),
        project["dependencies"],
        project["optional-dependencies"],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


# --- The stamp -----------------------------------------------------------------------------------


def read_stamp(folder: Path) -> Stamp | None:
    """The stamp of an environment; None where it is absent, unreadable or of another make."""
    try:
        return Stamp(**json.loads((folder / STAMP_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_stamp(folder: Path, stamp: Stamp) -> None:
    """Write the stamp in one step, so that an interruption leaves a whole one or none."""
    draft = folder / (STAMP_NAME + ".draft")
    draft.write_text(json.dumps(stamp._asdict(), indent=2) + "\n", encoding="utf-8")
    draft.replace(folder / STAMP_NAME)


# --- Steps ---------------------------------------------------------------------------------------


def run(command: Command, failure: str) -> None:
    """Run a program to its end, and name the failed step if it fails."""
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode != 0:
        raise EnvironmentProblem(f"{failure}; the reason stands above")


def pip(folder: Path, *arguments: str | Path) -> Command:
    """The command line of the environment's pip; twice quiet is: errors only."""
    python = folder / "bin" / "python"
    return [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "--quiet", *arguments]


def works(folder: Path) -> bool:
    """Whether the environment's Python starts (its base may have been removed or replaced)."""
    command: Command = [folder / "bin" / "python", "-c", "import pip"]
    try:
        started = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    except OSError:
        return False
    return started.returncode == 0


def create(folder: Path) -> None:
    """Make an empty environment, whatever lay there before."""
    require_venv()
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)
    say(f"creating {folder.name} with Python {sys.version.split()[0]}")
    run([BASE_PYTHON, "-m", "venv", folder], f"could not create {folder.name}")


def require_venv() -> None:
    """Some systems ship Python without the modules that make environments."""
    try:
        import ensurepip
        import venv

        del ensurepip, venv
    except ImportError as absent:
        raise EnvironmentProblem(
            f"this Python has no module {absent.name!r}, which making an environment needs; "
            "install it (on Debian and Ubuntu: apt install python3-venv)",
            status=2,
        ) from absent


def build_wheel(folder: Path, profile: str) -> Path:
    """Build the wheel of this checkout into the environment's own folder `wheel`."""
    say("building the wheel")
    shelf = folder / "wheel"
    shutil.rmtree(shelf, ignore_errors=True)
    # Where the pinned build backend is installed, it serves: at once, and without a network.
    isolation = ["--no-build-isolation"] if profile == "dev" else []
    run(
        pip(folder, "wheel", "--no-deps", *isolation, "--wheel-dir", shelf, ROOT),
        "could not build the wheel of chainrule",
    )
    (wheel,) = shelf.glob("chainrule-*.whl")
    return wheel


def install_profile(folder: Path, profile: str, wheel: Path) -> None:
    """Install the wheel with everything that the profile holds, in the pinned versions."""
    say(f"installing the wheel and its dependencies ({profile})")
    pins = "--constraint" if profile == "demo" else "--requirement"
    # pip would compile all of scikit-learn, of which little gets imported, on a single core: more
    # than half of the time until the demo starts.
    run(
        pip(
            folder,
            "install",
            "--no-compile",
            pins,
            pins_of(profile),
            f"{wheel}{EXTRAS_OF_PROFILE[profile]}",
        ),
        "could not install chainrule and its dependencies",
    )
    if profile != "demo":
        compile_packages(folder)


def compile_packages(folder: Path) -> None:
    """Write bytecode on all cores: imports are timed, and not every user's Python caches it."""
    command: Command = [folder / "bin" / "python", "-m", "compileall", "-q", "-q", "-j", "0", folder / "lib"]
    # Its status tells only of files that are not meant for this Python, which nothing imports.
    subprocess.run(command, stdin=subprocess.DEVNULL, check=False)


def replace_wheel(folder: Path, wheel: Path) -> None:
    """Put the wheel in the place of the one that is installed."""
    say("installing the wheel")
    run(
        pip(folder, "install", "--no-deps", "--force-reinstall", wheel),
        "could not install the wheel of chainrule",
    )


# --- The whole -----------------------------------------------------------------------------------


def covers(held: str, wanted: str) -> bool:
    """Whether an environment of one profile serves where another is wanted."""
    if held in LADDER and wanted in LADDER:
        return LADDER.index(held) >= LADDER.index(wanted)
    return held == wanted


def prepare(folder: Path, profile: str) -> None:
    """Bring an environment to the state of the checkout; do nothing where it is there already."""
    with locked(folder):
        foundation = fingerprint_of_foundation(folder, profile)
        package = fingerprint_of_package(ROOT)
        stamp = read_stamp(folder)
        if stamp is None or stamp.foundation != foundation or not works(folder):
            create(folder)
            stamp = Stamp(foundation, profile="", package="")
            write_stamp(folder, stamp)
        update(folder, stamp, Stamp(foundation, profile, package))


def update(folder: Path, stamp: Stamp, goal: Stamp) -> None:
    """Install what a sound environment lacks."""
    enough = covers(stamp.profile, goal.profile)
    if enough and stamp.package == goal.package:
        return
    wheel = build_wheel(folder, stamp.profile)
    (folder / STAMP_NAME).unlink()  # from here on an interruption leaves an unsound environment
    if not enough:
        install_profile(folder, goal.profile, wheel)
    if stamp.package not in ("", goal.package):
        replace_wheel(folder, wheel)
    write_stamp(folder, goal if not enough else goal._replace(profile=stamp.profile))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time work on an environment; an ended process leaves no lock behind."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with open(folder.with_name(folder.name + ".lock"), "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that prepares {folder.name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- Every supported Python ----------------------------------------------------------------------


def candidates(version: str) -> Iterator[Path]:
    """Where an interpreter of that version may lie: this one, those on PATH, those of pyenv."""
    yield BASE_PYTHON
    for entry in os.environ.get("PATH", "").split(os.pathsep):
        yield Path(entry) / f"python{version}"
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    releases = [
        folder
        for folder in root.glob(f"versions/{version}.*")
        if folder.name.rpartition(".")[2].isdecimal()  # neither 3.13.0t nor 3.13.0rc1
    ]
    for folder in sorted(releases, key=lambda path: int(path.suffix[1:]), reverse=True):
        yield folder / "bin" / "python"


def is_usable(interpreter: Path, version: str) -> bool:
    """Whether it runs (a pyenv shim may not), is of that version and can make environments."""
    probe = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run([interpreter, "-c", probe], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError:
        return False
    return answer.returncode == 0 and answer.stdout.strip() == version


def test_with(interpreter: Path, version: str, arguments: list[str]) -> bool:
    """Run the quick tests in an environment of that interpreter; whether all passed."""
    say(f"Python {version}: {interpreter}")
    folder = ROOT / f".venv-{version}"
    prepared = subprocess.run([interpreter, Path(__file__).resolve(), "prepare", "dev", "--folder", folder])
    if prepared.returncode != 0:
        return False
    quick = ("-n", "auto", "--dist", "worksteal", "-m", "not slow")
    tests: Command = [folder / "bin" / "python", "-m", "pytest", *quick, *arguments]
    return subprocess.run(tests, cwd=ROOT).returncode == 0


def test_all_pythons(arguments: list[str]) -> None:
    """Run the quick tests on every supported Python that this machine has."""
    failed = []
    for version in SUPPORTED_PYTHONS:
        usable = (path for path in candidates(version) if is_usable(path, version))
        interpreter = next(usable, None)
        if interpreter is None:
            say(f"Python {version}: no usable interpreter found, not tested")
        elif not test_with(interpreter, version, arguments):
            failed.append(version)
    if failed:
        raise EnvironmentProblem(f"the quick tests failed on Python {', '.join(failed)}")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="environment.py", description="see the docstring")
    commands = parser.add_subparsers(dest="command", required=True)
    prepared = commands.add_parser("prepare", help="make or refresh one environment")
    prepared.add_argument("profile", choices=PROFILES)
    prepared.add_argument("--folder", type=Path, help="where; by default the profile's own place in the checkout")
    tested = commands.add_parser("pythons", help="run the quick tests on every supported Python")
    tested.add_argument("arguments", nargs="*", help="passed on to pytest")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Do what the command line says; the exit status."""
    options = parse(arguments)
    try:
        if options.command == "prepare":
            folder = options.folder or ROOT / FOLDER_OF_PROFILE[options.profile]
            prepare(Path(os.path.abspath(folder)), options.profile)
        else:
            test_all_pythons(options.arguments)
    except EnvironmentProblem as problem:
        sys.stderr.write(f"error: {problem}\n")
        return problem.status
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
