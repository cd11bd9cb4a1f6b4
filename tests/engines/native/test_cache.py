"""The cache of compiled steps: what it keeps, what it refuses, and that it never stands in the way."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from chainrule.engines.native import cache
from chainrule.engines.native.cache import Entry, ObjectCache, cache_key, open_cache
from chainrule.engines.native.jit import Target
from chainrule.errors import ConfigError
from chainrule.files import user_cache_folder

KEY, OTHER = "a" * 64, "b" * 64
PLAN = {"arena": 4096, "names": ["conv2d_1", "größe"], "nested": {"x": [1, 2.5, None, True]}}
CODE = (bytes(range(256)) * 19, b"", bytes(256))
SIZE = sum(map(len, CODE))

posix_only = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
not_root = pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everywhere")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """The folder that the environment names; it does not exist yet."""
    place = tmp_path / "some" / "cache"
    monkeypatch.setenv("CHAINRULE_CACHE", str(place))
    monkeypatch.delenv("CHAINRULE_CACHE_SIZE", raising=False)
    cache._warn.cache_clear()
    yield place
    cache._warn.cache_clear()


def opened() -> ObjectCache:
    found = open_cache()
    assert found is not None
    return found


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


# --- What it keeps -------------------------------------------------------------------------------


def test_what_is_stored_is_loaded(folder: Path) -> None:
    assert opened().load(KEY) is None
    opened().store(KEY, PLAN, CODE)
    assert opened().load(KEY) == Entry(PLAN, CODE)
    assert opened().load(OTHER) is None
    opened().store(KEY, [], ())
    assert opened().load(KEY) == Entry([], ())
    assert len(list(folder.iterdir())) == 1


@posix_only
def test_only_the_user_sees_it(folder: Path) -> None:
    old = os.umask(0)
    try:
        opened().store(KEY, PLAN, CODE)
    finally:
        os.umask(old)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert only_file(folder).stat().st_mode & 0o777 == 0o600


def test_a_key_covers_text_and_target() -> None:
    base = Target("x86_64-unknown-linux-gnu", "znver3", "+avx2,+fma")
    keys = {
        cache_key("step", base),
        cache_key("step 2", base),
        cache_key("step", Target(base.triple, "znver4", base.features)),
        cache_key("step", Target(base.triple, base.cpu, "+avx2")),
        cache_key("step", Target("aarch64-unknown-linux-gnu", base.cpu, base.features)),
        # The parts do not run into one another.
        cache_key("ep", Target(base.triple, base.cpu, base.features + "st")),
    }
    assert len(keys) == 6
    assert cache_key("step", base) in keys
    assert all(len(key) == 64 for key in keys)


@pytest.mark.parametrize("part", ["__version__", "llvm_version"])
def test_a_key_covers_versions(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target("x86_64-unknown-linux-gnu", "znver3", "")
    before = cache_key("step", target)
    monkeypatch.setattr(cache, part, (lambda: "0.0") if part == "llvm_version" else "0.0")
    assert cache_key("step", target) != before


# --- Damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 7, 8, 39, 40, 47, 48, 60, 200, -1])
def test_one_wrong_byte_is_found(folder: Path, place: int) -> None:
    opened().store(KEY, PLAN, CODE)
    path = only_file(folder)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert opened().load(KEY) is None
    assert not path.exists()
    opened().store(KEY, PLAN, CODE)
    assert opened().load(KEY) == Entry(PLAN, CODE)


@pytest.mark.parametrize("size", [0, 10, 47, 48, 100, -1])
def test_a_torn_file_is_found(folder: Path, size: int) -> None:
    opened().store(KEY, PLAN, CODE)
    path = only_file(folder)
    path.write_bytes(path.read_bytes()[:size])
    assert opened().load(KEY) is None
    assert not path.exists()


def test_an_entry_under_another_name_is_found(folder: Path) -> None:
    opened().store(KEY, PLAN, CODE)
    only_file(folder).rename(folder / f"{OTHER}.step")
    assert opened().load(OTHER) is None


# --- Whose folder it is --------------------------------------------------------------------------


@posix_only
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o720])
def test_a_folder_that_others_can_write_to_is_not_used(folder: Path, mode: int) -> None:
    folder.mkdir(parents=True)
    folder.chmod(mode)
    with pytest.warns(RuntimeWarning, match=rf"others can write to it \(its mode is {mode:o}; expected 700\)"):
        assert open_cache() is None
    assert open_cache() is None  # without another warning


@posix_only
def test_a_folder_of_another_user_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened()
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.warns(RuntimeWarning, match=f"it belongs to the user with number {user}"):
        assert open_cache() is None


@posix_only
def test_a_symbolic_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    folder.parent.mkdir()
    folder.symlink_to(tmp_path)
    with pytest.warns(RuntimeWarning, match="symbolic link"):
        assert open_cache() is None


@posix_only
def test_a_linked_entry_is_not_followed(folder: Path, tmp_path: Path) -> None:
    opened().store(KEY, PLAN, CODE)
    path = only_file(folder)
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert opened().load(KEY) is None
    assert not path.is_symlink()
    assert elsewhere.exists()


@posix_only
def test_an_entry_that_others_could_have_written_is_deleted(folder: Path) -> None:
    opened().store(KEY, PLAN, CODE)
    only_file(folder).chmod(0o620)
    assert opened().load(KEY) is None
    assert not list(folder.iterdir())


def test_a_file_in_the_folders_place(folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("")
    with pytest.warns(RuntimeWarning, match="it is no folder"):
        assert open_cache() is None


# --- Size ----------------------------------------------------------------------------------------


def test_what_was_used_least_recently_goes_first(folder: Path) -> None:
    store = opened()
    store.limit = 4 * SIZE
    names = [f"{number:064d}" for number in range(6)]
    for age, name in enumerate(names[:3]):
        store.store(name, {}, CODE)
        os.utime(folder / f"{name}.step", (1000 + age, 1000 + age))
    assert store.load(names[0]) is not None  # now the youngest
    store.store(names[3], {}, CODE)
    assert [name for name in names if store.load(name)] == [names[0], names[2], names[3]]


def test_what_is_larger_than_the_cache_is_not_kept(folder: Path) -> None:
    store = opened()
    store.store(KEY, PLAN, CODE)
    store.limit = SIZE
    store.store(OTHER, PLAN, CODE)
    assert store.load(KEY) is not None
    assert store.load(OTHER) is None


def test_what_a_dead_process_left_is_removed(folder: Path) -> None:
    store = opened()
    old, young, foreign = folder / "1.draft", folder / "2.draft", folder / "notes.txt"
    for path in (old, young, foreign):
        path.write_bytes(b"torn")
    ago = time.time() - 2 * 3600
    os.utime(old, (ago, ago))
    os.utime(foreign, (ago, ago))
    store.store(KEY, PLAN, CODE)
    assert not old.exists()
    assert young.exists()
    assert foreign.exists()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("variable", ["CHAINRULE_CACHE=off", "CHAINRULE_CACHE_SIZE=0"])
def test_the_cache_can_be_turned_off(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*variable.split("="))
    assert open_cache() is None


@pytest.mark.usefixtures("folder")
def test_the_size_is_a_number_of_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened().limit == 512_000_000
    monkeypatch.setenv("CHAINRULE_CACHE_SIZE", "20")
    assert opened().limit == 20_000_000


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("size", ["-1", "1e3", "many", "1.5", "²"])
def test_a_size_that_is_none_is_refused(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_CACHE_SIZE", size)
    with pytest.raises(ConfigError, match="CHAINRULE_CACHE_SIZE"):
        open_cache()


# --- Trouble -------------------------------------------------------------------------------------


@posix_only
@not_root
def test_a_home_that_cannot_be_written_to(folder: Path) -> None:
    folder.parent.mkdir()
    folder.parent.chmod(0o500)
    with pytest.warns(RuntimeWarning, match="no folder for the code cache"):
        assert open_cache() is None


def test_a_home_that_is_a_file(folder: Path) -> None:
    folder.parent.write_text("")
    with pytest.warns(RuntimeWarning, match=r"no folder for the code cache .*CHAINRULE_CACHE=off"):
        assert open_cache() is None


def test_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened()

    def full(path: Path, content: bytes) -> None:
        path.write_bytes(content[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache, "_write_own_file", full)
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        store.store(KEY, PLAN, CODE)
    store.store(KEY, PLAN, CODE)  # without another warning
    assert not list(folder.iterdir())
    assert store.load(KEY) is None


def test_a_folder_that_is_deleted_meanwhile(folder: Path) -> None:
    store = opened()
    folder.rmdir()
    assert store.load(KEY) is None
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        store.store(KEY, PLAN, CODE)


def test_where_systems_keep_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home-of-a"))
    home = Path("/home-of-a")
    assert user_cache_folder("linux", {}) == home / ".cache" / "chainrule"
    assert user_cache_folder("linux", {"XDG_CACHE_HOME": "/x"}) == Path("/x/chainrule")
    assert user_cache_folder("linux", {"XDG_CACHE_HOME": "x"}) == home / ".cache" / "chainrule"
    assert user_cache_folder("darwin", {}) == home / "Library" / "Caches" / "chainrule"
    assert user_cache_folder("win32", {"LOCALAPPDATA": "/local"}) == Path("/local/chainrule/cache")
    assert user_cache_folder("win32", {}) == home / "AppData" / "Local" / "chainrule" / "cache"


# --- Several processes ---------------------------------------------------------------------------


BUSY = """
import json, random, sys
from pathlib import Path
from chainrule.engines.native.cache import Entry, ObjectCache

folder, seed = Path(sys.argv[1]), int(sys.argv[2])
store, draw = ObjectCache(folder, 400_000), random.Random(seed)
hits = wrong = 0
for turn in range(300):
    key = f"{draw.randrange(12):064d}"
    expected = Entry({"key": key}, (key.encode() * 1000, b"", key.encode()))
    if draw.random() < 0.3:
        store.store(key, expected.plan, expected.objects)
    else:
        got = store.load(key)
        hits += got is not None
        wrong += got is not None and got != expected
print(json.dumps([hits, wrong]))
"""


@pytest.mark.slow
def test_processes_do_not_disturb_one_another(folder: Path) -> None:
    opened()
    running = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", BUSY, str(folder), str(seed)], stdout=subprocess.PIPE)
        for seed in range(4)
    ]
    for process in running:
        printed, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        hits, wrong = json.loads(printed)
        assert hits > 0
        assert wrong == 0
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 400_000
    assert not list(folder.glob("*.draft"))
