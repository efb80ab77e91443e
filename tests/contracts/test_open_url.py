"""open_url: cached, checked, retried where that helps, and quick to say that there is no network."""

import hashlib
import http.server
import os
import socket
import threading
import time

import pytest

from dnnlib import download, util
from dnnlib.errors import UserError

BODY = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """/file, /flaky (503 once, then half a body once), /missing, /page.pkl (HTML), /empty."""

    def do_GET(self):
        self.server.requested.append(self.path)
        count = self.server.requested.count(self.path)
        status, kind, length, body = 200, "application/octet-stream", None, BODY
        if self.path == "/missing":
            status, body = 404, b""
        elif self.path == "/broken":
            status, body = 500, b""
        elif self.path == "/flaky" and count == 1:
            status, body = 503, b""
        elif self.path == "/flaky" and count == 2:
            length, body = len(BODY), BODY[:1000]
        elif self.path == "/page.pkl":
            kind, body = "text/html; charset=utf-8", b"<html>quota</html>"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(download.time, "sleep", lambda _sec: None)
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.requested = []
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    httpd.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def test_downloads_once_into_the_cache(server, tmp_path, capsys):
    url = server.url + "/file"
    for _ in range(2):
        with util.open_url(url, cache_dir=str(tmp_path)) as file:
            assert file.read() == BODY
    assert server.requested == ["/file"]
    path = util.open_url(url, cache_dir=str(tmp_path), return_filename=True, digest=SHA256)
    assert os.listdir(tmp_path) == [os.path.basename(path)]
    assert "Downloading" in capsys.readouterr().out


def test_default_cache_folder_and_no_cache(server, monkeypatch, tmp_path):
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path))
    util.open_url(server.url + "/file", verbose=False).close()
    assert len(os.listdir(tmp_path / "downloads")) == 1
    with util.open_url(server.url + "/other", cache=False, verbose=False) as file:
        assert file.read() == BODY
    assert len(os.listdir(tmp_path / "downloads")) == 1


def test_failures_that_may_pass_are_retried(server, tmp_path):
    with util.open_url(server.url + "/flaky", cache_dir=str(tmp_path), verbose=False) as file:
        assert file.read() == BODY
    assert server.requested == ["/flaky"] * 3


def test_lasting_failures(server, tmp_path):
    with pytest.raises(UserError, match="404.*check the address.*place it as .*missing in the folder"):
        util.open_url(server.url + "/missing", cache_dir=str(tmp_path), verbose=False)
    assert server.requested == ["/missing"]  # no use in asking again
    with pytest.raises(UserError, match=r"500.*\(3 attempts\)"):
        util.open_url(server.url + "/broken", cache_dir=str(tmp_path), num_attempts=3, verbose=False)
    with pytest.raises(UserError, match="web page"):
        util.open_url(server.url + "/page.pkl", cache_dir=str(tmp_path), verbose=False)
    assert os.listdir(tmp_path) == []


def test_digest_of_downloads(server, tmp_path):
    wrong = "0" * 64
    with pytest.raises(UserError, match=f"expected SHA-256 {wrong}, got {SHA256}"):
        util.open_url(server.url + "/file", cache_dir=str(tmp_path), digest=wrong, verbose=False)
    assert os.listdir(tmp_path) == []
    path = util.open_url(server.url + "/file", cache_dir=str(tmp_path), digest=SHA256.upper(), return_filename=True, verbose=False)
    with open(path, "ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=f"{os.path.basename(path)} has the wrong content.*delete it"):
        util.open_url(server.url + "/file", cache_dir=str(tmp_path), digest=SHA256)


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("digest", [None, SHA256])
def test_offline_is_said_within_two_seconds(server, tmp_path, digest):
    import requests  # noqa: F401  importing it is not what is measured

    for url in (f"http://127.0.0.1:{closed_port()}/weights.pkl", "https://no-such-host.invalid/weights.pkl"):
        start_sec = time.monotonic()
        with pytest.raises(UserError) as caught:
            util.open_url(url, cache_dir=str(tmp_path), digest=digest)
        assert time.monotonic() - start_sec < 2
        text = str(caught.value)
        assert url in text and download.cache_file_name(url) in text and str(tmp_path) in text
        assert digest is None or digest in text


def test_a_silent_network_counts_as_offline(server, tmp_path, monkeypatch):
    release = threading.Event()

    def hang(*_args, **_kwargs):
        release.wait(30)
        raise OSError("nobody there")

    monkeypatch.setattr(download.socket, "create_connection", hang)
    start_sec = time.monotonic()
    with pytest.raises(UserError, match="no answer"):
        util.open_url("http://127.0.0.1/x", cache_dir=str(tmp_path))
    assert time.monotonic() - start_sec < 2
    release.set()


def test_files_placed_by_hand(tmp_path):
    url = "https://no-such-host.invalid/folder/weights.pkl"
    (tmp_path / "weights.pkl").write_bytes(BODY)
    with pytest.raises(UserError):  # could be another site's file of that name
        util.open_url(url, cache_dir=str(tmp_path), verbose=False)
    assert util.open_url(url, cache_dir=str(tmp_path), digest=SHA256, return_filename=True) == str(tmp_path / "weights.pkl")
    (tmp_path / "weights.pkl").rename(tmp_path / download.cache_file_name(url))
    with util.open_url(url, cache_dir=str(tmp_path)) as file:
        assert file.read() == BODY


def test_local_files(tmp_path):
    path = tmp_path / "a b.pkl"
    path.write_bytes(BODY)
    for name in (str(path), path.as_uri()):
        with util.open_url(name) as file:
            assert file.read() == BODY
        assert util.open_url(name, return_filename=True, digest=SHA256) == str(path)
        with pytest.raises(UserError, match="a b.pkl has the wrong content: expected SHA-256 00.*got"):
            util.open_url(name, digest="00")
    with pytest.raises(UserError, match="no such file"):
        util.open_url(str(tmp_path / "missing.pkl"))
    with pytest.raises(UserError, match="is a folder"):
        util.open_url(str(tmp_path))
    with pytest.raises(UserError, match="only https, http and file"):
        util.open_url("ftp://host.org/a")
