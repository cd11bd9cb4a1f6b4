"""Data sets by name: every way a download can go wrong, against a server of the test's own."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.server
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule.data import Download, data_folder, fetch, mnist
from chainrule.data.published import DATA_SETS, Published, PublishedFile
from chainrule.errors import ConfigError, DataError
from tests.data.test_idx import as_idx

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([7, 0, 9], np.uint8)
CONTENT = {
    f"{part}-{what}": as_idx(array)
    for part in ("train", "t10k")
    for what, array in (("images", IMAGES), ("labels", LABELS))
}

Handler = Callable[[http.server.BaseHTTPRequestHandler, str], None]


def small_files() -> tuple[PublishedFile, ...]:
    """A small MNIST as if it had been published."""
    return tuple(
        dataclasses.replace(file, size=len(CONTENT[file.stem]), sha256=hashlib.sha256(CONTENT[file.stem]).hexdigest())
        for file in DATA_SETS["mnist"].files
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A small MNIST as the published one, and an empty data folder."""
    monkeypatch.setattr("chainrule.data.download.DATA_SETS", {"mnist": Published(small_files(), ())})
    monkeypatch.setenv("CHAINRULE_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CHAINRULE_DATA_MIRROR", raising=False)
    return tmp_path / "home" / "mnist"


class Server:
    """A mirror, in a thread; `asked` has the paths that were asked for."""

    def __init__(self, answer: Handler) -> None:
        self.asked: list[str] = []
        self.release = threading.Event()
        outer = self

        class Answers(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                answer(self, self.path.rsplit("/", 1)[1].partition("-idx")[0])

            def log_message(self, *arguments: Any) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[[Handler], Server]]:
    servers: list[Server] = []

    def start(answer: Handler) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def give(
    to: http.server.BaseHTTPRequestHandler, body: bytes, announced: int | None = None, kind: str = "application/gzip"
) -> None:
    to.send_response(200)
    to.send_header("Content-Type", kind)
    to.send_header("Content-Length", str(len(body) if announced is None else announced))
    to.end_headers()
    to.wfile.write(body)


def well(to: http.server.BaseHTTPRequestHandler, stem: str) -> None:
    give(to, gzip.compress(CONTENT[stem], mtime=0))


def plain(to: http.server.BaseHTTPRequestHandler, stem: str) -> None:
    give(to, CONTENT[stem])


def truncated(to: http.server.BaseHTTPRequestHandler, stem: str) -> None:
    body = gzip.compress(CONTENT[stem])
    give(to, body[:-5], len(body))


def cut_stream(to: http.server.BaseHTTPRequestHandler, stem: str) -> None:
    give(to, gzip.compress(CONTENT[stem])[:-5])


def short(to: http.server.BaseHTTPRequestHandler, stem: str) -> None:
    give(to, gzip.compress(CONTENT[stem][:-1]))


def wrong(to: http.server.BaseHTTPRequestHandler, stem: str) -> None:
    give(to, gzip.compress(CONTENT[stem][:-1] + b"\xff"))


def flipped(to: http.server.BaseHTTPRequestHandler, stem: str) -> None:
    body = bytearray(gzip.compress(CONTENT[stem]))
    body[-6] ^= 1  # the checksum
    give(to, bytes(body))


def endless(to: http.server.BaseHTTPRequestHandler, stem: str) -> None:
    give(to, gzip.compress(bytes(1 << 24)))


def longer(to: http.server.BaseHTTPRequestHandler, stem: str) -> None:
    give(to, os.urandom(1 << 18))


def page(to: http.server.BaseHTTPRequestHandler, stem: str) -> None:
    give(to, b"\n<!DOCTYPE html><html>Please log in</html>", kind="text/html")


def redirected(to: http.server.BaseHTTPRequestHandler, stem: str) -> None:
    if "login" in to.path:
        return page(to, stem)
    to.send_response(302)
    to.send_header("Location", "/login/page")
    to.send_header("Content-Length", "0")
    return to.end_headers()


def absent(to: http.server.BaseHTTPRequestHandler, stem: str) -> None:
    to.send_error(404, "Not Found")


def circle(to: http.server.BaseHTTPRequestHandler, stem: str) -> None:
    to.send_response(302)
    to.send_header("Location", to.path)
    to.send_header("Content-Length", "0")
    to.end_headers()


def nothing(to: http.server.BaseHTTPRequestHandler, stem: str) -> None:
    to.close_connection = True


@pytest.mark.parametrize("answer", [well, plain])
def test_absent_files_are_fetched_once(
    small: Path, serve: Any, answer: Handler, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(answer)
    monkeypatch.setenv("CHAINRULE_DATA_MIRROR", server.address)
    for _ in range(2):
        data = mnist()
        np.testing.assert_array_equal(data.x_train[..., 0], IMAGES)
        np.testing.assert_array_equal(data.y_test, LABELS)
        assert len(server.asked) == 4
    assert sorted(os.listdir(small)) == [
        f"{stem}{'' if answer is plain else '.gz'}"
        for stem in (
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
        )
    ]
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 4
    first = f"{server.address}/mnist/train-images-idx3-ubyte.gz to '{small / 'train-images-idx3-ubyte.gz'}'"
    assert said.err.startswith(f"chainrule: downloading {first}\n")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (truncated, r"the connection ended after \d+ of \d+ bytes"),
        (cut_stream, r"the gzip stream is truncated, after \d+ of 76 bytes"),
        (short, "it has 75 bytes, unpacked, and 76 were expected"),
        (wrong, "its content has the SHA-256 [0-9a-f]{64}, unpacked, and [0-9a-f]{64} was expected"),
        (flipped, "the gzip stream is corrupted"),
        (endless, "it has more than the 76 bytes, unpacked, that were expected"),
        (longer, "the answer is longer than the 76 bytes that were expected"),
        (page, "the answer is a web page, not the file"),
        (redirected, "the answer is a web page, not the file"),
        (absent, "the server answers 404 Not Found"),
        (circle, r"the server redirects again and again \(302\)"),
        (nothing, r"no connection \(Remote end closed connection without response\)"),
    ],
)
@pytest.mark.slow
def test_what_an_address_does_wrong_is_said_and_leaves_nothing(
    small: Path, serve: Any, answer: Handler, message: str
) -> None:
    bad, good = serve(answer), serve(well)
    address = f"{bad.address}/mnist/train-images-idx3-ubyte.gz"
    events: list[Download] = []
    with pytest.raises(DataError, match=message) as caught:
        fetch("mnist", mirrors=[bad.address], report=events.append)
    assert str(caught.value).startswith(
        f"'{small / 'train-images-idx3-ubyte.gz'}' could not be downloaded from {address} ("
    )
    assert str(caught.value).endswith(
        "); name a folder that has the files (--data FOLDER), or an address that has them in CHAINRULE_DATA_MIRROR"
    )
    assert "\n" not in str(caught.value)
    assert os.listdir(small) == []
    assert events[0] == Download(str(small / "train-images-idx3-ubyte.gz"), address)
    assert events[-1].failure
    assert fetch("mnist", mirrors=[bad.address, good.address], report=events.append) == small
    assert len(os.listdir(small)) == 4
    assert mnist(small).describe().startswith("mnist: 3 training and 3 test images")


@pytest.mark.slow
def test_a_silent_server_is_given_up(small: Path, serve: Any) -> None:
    def hang(to: http.server.BaseHTTPRequestHandler, stem: str) -> None:
        mute.release.wait(20)

    def stall(to: http.server.BaseHTTPRequestHandler, stem: str) -> None:
        give(to, b"\x1f\x8b", 100)
        to.wfile.flush()
        mute.release.wait(20)

    for answer, message in ((hang, r"no answer within 0\.2 s"), (stall, r"silent for 0\.2 s")):
        mute = serve(answer)
        with pytest.raises(DataError, match=message):
            fetch("mnist", mirrors=[mute.address], timeout=0.2, report=lambda event: None)
        mute.release.set()
    assert os.listdir(small) == []


@pytest.mark.slow
def test_a_server_that_drips_is_given_up(small: Path, serve: Any) -> None:
    def drip(to: http.server.BaseHTTPRequestHandler, stem: str) -> None:
        give(to, b"\x1f", 10_000)
        while not slow.release.wait(0.02):
            to.wfile.write(b"\0")

    slow = serve(drip)
    with pytest.raises(DataError, match=r"too slow, \d+ bytes in 0 s"):
        fetch("mnist", mirrors=[slow.address], timeout=0.2, report=lambda event: None)


def test_no_connection(small: Path, serve: Any) -> None:
    server = serve(well)
    server.close()
    with pytest.raises(DataError, match=r"no connection \(Connection refused\)"):
        fetch("mnist", mirrors=[server.address], report=lambda event: None)


@pytest.mark.parametrize("mirror", ["nonsense", "http://[", "ftp:/"])
def test_an_address_that_is_none(small: Path, mirror: str) -> None:
    with pytest.raises(DataError, match=r"no connection \("):
        fetch("mnist", mirrors=[mirror], report=lambda event: None)


@pytest.mark.parametrize("content", [b"mine", gzip.compress(b"mine", mtime=0), b""])
def test_a_file_of_the_users_is_named_and_left_alone(small: Path, serve: Any, content: bytes) -> None:
    small.mkdir(parents=True)
    own = small / "t10k-labels.idx1-ubyte"
    own.write_bytes(content)
    server = serve(well)
    with pytest.raises(DataError, match=r"t10k-labels\.idx1-ubyte' is not the published .* move it away"):
        fetch("mnist", mirrors=[server.address], report=lambda event: None)
    assert own.read_bytes() == content


def test_a_draft_of_a_dead_process_goes_and_a_young_one_stays(small: Path, serve: Any) -> None:
    small.mkdir(parents=True)
    draft = ".train-images-idx3-ubyte.0123456789abcde{}.part"
    old, young, other = small / draft.format(0), small / draft.format(1), small / ".other.part"
    for path in (old, young, other):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    os.utime(other, (1, 1))
    fetch("mnist", mirrors=[serve(well).address], report=lambda event: None)
    assert (old.exists(), young.exists(), other.exists()) == (False, True, True)


def test_progress_is_reported(small: Path, serve: Any) -> None:
    events: list[Download] = []
    fetch("mnist", mirrors=[serve(well).address], report=events.append)
    one = [event for event in events if "train-labels" in event.file]
    total = len(gzip.compress(CONTENT["train-labels"], mtime=0))
    assert [(event.received, event.total, event.done) for event in one] == [
        (0, None, False),
        (total, total, False),
        (total, total, True),
    ]


def test_a_reason_stands_once_in_the_error_and_each_address_in_the_report(small: Path, serve: Any) -> None:
    servers = [serve(absent), serve(absent), serve(page)]
    events: list[Download] = []
    with pytest.raises(DataError) as caught:
        fetch("mnist", mirrors=[server.address for server in servers], report=events.append)
    said = str(caught.value)
    assert (
        "from any of 3 addresses (the server answers 404 Not Found; the answer is a web page, not the file); " in said
    )
    assert not any(server.address in said for server in servers)
    assert [event.address.rpartition("/mnist/")[0] for event in events if event.failure] == [
        server.address for server in servers
    ]


def test_a_folder_that_cannot_be_made(small: Path, tmp_path: Path, serve: Any) -> None:
    (tmp_path / "home").write_text("a file")
    server = serve(well)
    for folder, why in ((small, "Not a directory"), (tmp_path / "home", "it is a file")):
        with pytest.raises(DataError) as caught:
            fetch("mnist", folder, mirrors=[server.address], report=lambda event: None)
        assert str(caught.value) == f"'{folder}': cannot be made ({why}); expected the name of a folder"
    assert server.asked == []
    assert (tmp_path / "home").read_text() == "a file"


def child(code: str) -> subprocess.Popen[str]:
    """Another process with the same small data set; it is told the code to run."""
    facts = [(file.stem, file.rank, file.size, file.sha256) for file in small_files()]
    start = f"""
        from chainrule.data import download
        from chainrule.data.download import fetch
        from chainrule.data.published import Published, PublishedFile
        files = tuple(PublishedFile(*fact) for fact in {facts})
        download.DATA_SETS = {{"mnist": Published(files, ())}}
    """
    whole = textwrap.dedent(start) + textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", whole], stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_several_processes_at_once(small: Path, serve: Any) -> None:
    meeting = threading.Barrier(3, timeout=60)

    def together(to: http.server.BaseHTTPRequestHandler, stem: str) -> None:
        if stem == "train-images":
            meeting.wait()  # all three have found it absent
        well(to, stem)

    server = serve(together)
    code = f"fetch('mnist', {str(small)!r}, mirrors=[{server.address!r}])"
    processes = [child(code) for _ in range(3)]
    for process in processes:
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 0, said
    assert len(os.listdir(small)) == 4
    assert mnist(small).describe().startswith("mnist: 3 training")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="limits of file sizes are POSIX's")
def test_a_full_disk_ends_it_at_once_and_leaves_nothing(small: Path, serve: Any) -> None:
    server = serve(well)
    code = f"""
        import resource, sys
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
        try:
            fetch('mnist', {str(small)!r}, mirrors=[{server.address!r}] * 2, report=lambda event: None)
        except Exception as error:
            sys.exit(str(error))
    """
    process = child(code)
    said = process.communicate(timeout=60)[1]
    assert (process.returncode, said) == (
        1,
        f"'{small / 'train-images-idx3-ubyte.gz'}': cannot be written (File too large)\n",
    )
    assert os.listdir(small) == []
    assert len(server.asked) == 1


@pytest.mark.slow
def test_an_interrupted_download_leaves_nothing(small: Path, serve: Any) -> None:
    def stall(to: http.server.BaseHTTPRequestHandler, stem: str) -> None:
        give(to, b"\x1f\x8b", 100)
        to.wfile.flush()
        reached.set()
        server.release.wait(20)

    reached, server = threading.Event(), serve(stall)
    process = child(f"fetch('mnist', {str(small)!r}, mirrors=[{server.address!r}])")
    assert reached.wait(60)
    assert len(list(small.iterdir())) == 1  # the hidden draft
    process.send_signal(2)
    assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert os.listdir(small) == []


def test_where_data_sets_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CHAINRULE_DATA_HOME", str(tmp_path))
    assert data_folder("mnist") == tmp_path / "mnist"
    monkeypatch.delenv("CHAINRULE_DATA_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert data_folder("mnist") == tmp_path / "chainrule" / "data" / "mnist"


def test_an_unknown_name() -> None:
    with pytest.raises(ConfigError, match="no data set 'cifar' to fetch; expected one of mnist, fashion-mnist"):
        fetch("cifar")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_published_hashes_are_those_of_the_real_files(
    name: str, data_set: Callable[[str], Path], tmp_path: Path
) -> None:
    events: list[Download] = []
    mirror = data_set(name).parent.absolute().as_uri()
    fetch(name, tmp_path / "copy", mirrors=[mirror], report=events.append)
    assert sum(event.done for event in events) == 4
    assert fetch(name, tmp_path / "copy", mirrors=["http://nowhere.invalid"]) == tmp_path / "copy"
    for file in DATA_SETS[name].files:
        assert isinstance(file, PublishedFile)
        shown = (tmp_path / "copy" / f"{file.name}.gz").read_bytes()
        assert shown == (data_set(name) / f"{file.name}.gz").read_bytes()
