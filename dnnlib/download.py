"""Files from the web: cached, checked, retried where that helps, refused in seconds where it cannot.

Used through dnnlib.util.open_url. Must not know what the files hold.
"""

import atexit
import contextlib
import hashlib
import io
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from typing import IO, Any
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname

from .errors import UserError
from .files import atomic_open, clean_stale_temporaries

CONNECT_TIMEOUT_SEC = 1.8
READ_TIMEOUT_SEC = 30.0
_CHUNK_BYTES = 1 << 20


class _WorthRetrying(Exception):
    """The server or the line failed in a way that may pass."""


# ---------------------------------------------------------------------------------------------------------------------
# Local files.


def path_of_file_url(url: str) -> str:
    """file:///folder/name%20x -> /folder/name x; file://name -> name."""
    parsed = urlparse(url)
    return url2pathname(unquote(parsed.netloc) + parsed.path)


def open_local(path: str, return_filename: bool, digest: str | None) -> str | IO[bytes]:
    """The opened file, or its path after the same checks."""
    if not os.path.isfile(path):
        kind = "it is a folder" if os.path.isdir(path) else "there is no such file"
        raise UserError(f"Cannot open {path}: {kind}; check the path (a web address must begin with https:// or http://).")
    _check_digest(path, digest, remedy="get the right file, or leave the digest away if this one is meant")
    return path if return_filename else open(path, "rb")


def file_digest(path: str) -> str:
    """SHA-256 of a file in hexadecimal."""
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""):
            sha256.update(chunk)
    return sha256.hexdigest()


def _check_digest(path: str, digest: str | None, remedy: str) -> None:
    if digest is None:
        return
    found = file_digest(path)
    if found != digest.lower():
        raise UserError(f"{path} has the wrong content: expected SHA-256 {digest.lower()}, got {found}; {remedy}.")


# ---------------------------------------------------------------------------------------------------------------------
# Remote files.


def cache_file_name(url: str) -> str:
    """The name of a URL's file in the cache: a hash keeps equal file names of different sites apart."""
    name = re.sub(r"[^\w.+-]", "_", unquote(os.path.basename(urlparse(url).path))) or "download"
    return f"{hashlib.md5(url.encode('utf-8'), usedforsecurity=False).hexdigest()}_{name[-120:]}"


def open_remote(
    url: str, cache_dir: str, num_attempts: int, verbose: bool, return_filename: bool, cache: bool, digest: str | None
) -> str | IO[bytes]:
    """The downloaded file, opened or by name. See dnnlib.util.open_url."""
    if urlparse(url).scheme not in ("http", "https"):
        raise UserError(f"Cannot open {url}: only https, http and file addresses are known; download it by other means and give the path.")
    if return_filename and not cache:
        raise ValueError("open_url: return_filename needs cache=True, for the file must lie somewhere")
    if not cache:
        buffer = io.BytesIO()
        _download_with_retries(url, buffer, cache_dir, num_attempts, verbose, digest)
        buffer.seek(0)
        return buffer

    path = _find_cached(url, cache_dir, digest)
    if path is None:
        cache_dir = _writable(cache_dir)
        path = os.path.join(cache_dir, cache_file_name(url))
        clean_stale_temporaries(cache_dir)
        with atomic_open(path) as file:
            _download_with_retries(url, file, cache_dir, num_attempts, verbose, digest)
    return path if return_filename else open(path, "rb")


def _writable(cache_dir: str) -> str:
    """The cache folder, or one that lasts as long as this process where it cannot be written, which is said."""
    from . import cache  # uses dnnlib.util, which uses this module

    if cache.is_writable(cache_dir):
        return cache_dir
    folder = tempfile.mkdtemp(prefix="downloads-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _find_cached(url: str, cache_dir: str, digest: str | None) -> str | None:
    """The file of this URL in the cache, or one that the person placed there under its plain name."""
    hashed_name = cache_file_name(url)
    url_hash, plain_name = hashed_name.split("_", 1)
    try:
        names = sorted(os.listdir(cache_dir))
    except OSError:
        return None
    # Earlier tools name the file after the server's header, hence any name with the right hash will do.
    candidates = [name for name in names if name.startswith(url_hash + "_")]
    if digest is not None and not candidates and plain_name in names:
        candidates = [plain_name]  # the digest proves that it is not another site's file of the same name
    if not candidates:
        return None
    path = os.path.join(cache_dir, hashed_name if hashed_name in candidates else candidates[0])
    _check_digest(path, digest, remedy="delete it to download it again, or place the right file there")
    return path


def _place_by_hand(url: str, cache_dir: str, digest: str | None) -> str:
    name = cache_file_name(url)
    hint = f"Or download it elsewhere and place it as {name} in the folder {cache_dir}"
    if digest is not None:
        hint += f" (its own name {name.split('_', 1)[1]} will do; SHA-256 {digest.lower()})"
    return hint + "."


def _download_with_retries(url: str, file: IO[bytes], cache_dir: str, num_attempts: int, verbose: bool, digest: str | None) -> None:
    by_hand = _place_by_hand(url, cache_dir, digest)
    reason = _why_unreachable(url)
    if reason is not None:
        raise UserError(
            f"Cannot reach {url}: {reason}; check the network (proxies come from https_proxy, a slow line "
            f"needs DNNLIB_CONNECT_TIMEOUT_SEC). {by_hand}"
        )
    for attempt in range(1, num_attempts + 1):
        file.seek(0)
        file.truncate()
        try:
            if verbose:
                print(f"Downloading {url} ...", end="", flush=True)
            sha256_hex = _download_once(url, file, verbose)
            if verbose:
                print(" done", flush=True)
            break
        except _WorthRetrying as error:
            if verbose:
                print(f" failed: {error}", flush=True)
            if attempt == num_attempts:
                raise UserError(f"Cannot download {url}: {error} ({num_attempts} attempts); try again later. {by_hand}") from error
            time.sleep(min(0.5 * 2 ** (attempt - 1), 10))
        except UserError as error:
            if verbose:
                print(" failed", flush=True)
            raise UserError(f"{error} {by_hand}") from error
    if digest is not None and sha256_hex != digest.lower():
        raise UserError(
            f"The download of {url} has the wrong content: expected SHA-256 {digest.lower()}, got {sha256_hex}; it was not kept. {by_hand}"
        )


def _connect_timeout_sec() -> float:
    text = os.environ.get("DNNLIB_CONNECT_TIMEOUT_SEC", "")
    try:
        return float(text) if text else CONNECT_TIMEOUT_SEC
    except ValueError:
        raise UserError(f"DNNLIB_CONNECT_TIMEOUT_SEC must be a number of seconds (got {text!r}).") from None


def _host_to_connect(url: str) -> tuple[str, int]:
    """The host and port that a request for this URL talks to first: the proxy's, if there is one."""
    from requests.utils import get_environ_proxies, select_proxy

    proxy = select_proxy(url, get_environ_proxies(url))
    if proxy is not None:
        url = proxy if "://" in proxy else f"http://{proxy}"
    parsed = urlparse(url)
    return parsed.hostname or "", parsed.port or {"https": 443, "socks5": 1080, "socks5h": 1080}.get(parsed.scheme, 80)


def _why_unreachable(url: str) -> str | None:
    """None if a connection can be opened, else the reason in words.

    In a thread of its own because the look-up of a name has no time limit that Python could set.
    """
    host, port = _host_to_connect(url)
    timeout_sec = _connect_timeout_sec()
    outcome: list[str | None] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=timeout_sec).close()
            outcome.append(None)
        except socket.gaierror:
            outcome.append(f"the name {host} cannot be resolved")
        except (OSError, UnicodeError) as error:
            outcome.append(f"no connection to {host}:{port} ({getattr(error, 'strerror', None) or error})")

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(timeout_sec)
    return outcome[0] if outcome else f"no answer from {host}:{port} within {timeout_sec:g} s"


def _download_once(url: str, file: IO[bytes], verbose: bool) -> str:
    """Write the body to `file`; returns its SHA-256."""
    import requests

    try:
        # identity: the announced length is then that of the file.
        with contextlib.closing(requests.get(url, stream=True, timeout=(10, READ_TIMEOUT_SEC), headers={"Accept-Encoding": "identity"})) as response:
            if response.status_code in (408, 425, 429) or response.status_code >= 500:
                raise _WorthRetrying(f"the server answered {response.status_code} {response.reason}")
            if response.status_code >= 400:
                raise UserError(f"Cannot download {url}: the server answered {response.status_code} {response.reason}; check the address.")
            if "text/html" in response.headers.get("Content-Type", "") and not re.search(r"\.html?$", urlparse(url).path):
                raise UserError(f"Cannot download {url}: the server sent a web page instead of the file (a log-in, a quota or a warning page?).")
            return _copy_body(response, file, verbose)
    except requests.exceptions.SSLError as error:
        raise UserError(
            f"Cannot download {url}: the server's certificate is not trusted ({error}); a company network may need REQUESTS_CA_BUNDLE."
        ) from error
    except (requests.exceptions.InvalidURL, requests.exceptions.TooManyRedirects) as error:
        raise UserError(f"Cannot download {url}: {error}; check the address.") from error
    except requests.exceptions.RequestException as error:
        raise _WorthRetrying(f"the connection failed ({type(error).__name__})") from error


def _copy_body(response: Any, file: IO[bytes], verbose: bool) -> str:
    announced = response.headers.get("Content-Length")
    total = int(announced) if announced and announced.isdigit() else None
    sha256, received, last_report_sec = hashlib.sha256(), 0, time.monotonic()
    for chunk in response.iter_content(_CHUNK_BYTES):
        file.write(chunk)
        sha256.update(chunk)
        received += len(chunk)
        if verbose and time.monotonic() - last_report_sec > 5:
            last_report_sec = time.monotonic()
            of_total = f" of {total / 1e6:.0f}" if total else ""
            print(f" {received / 1e6:.0f}{of_total} MB", end="", flush=True)
    if total is not None and "Content-Encoding" not in response.headers and received != total:
        raise _WorthRetrying(f"the transfer stopped after {received} of {total} bytes")
    if received == 0:
        raise _WorthRetrying("the server sent an empty file")
    return sha256.hexdigest()
