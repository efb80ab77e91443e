"""The files of a data set: a folder or a zip as one flat list of names and bytes.

Everything that a person can have done wrong with the files becomes a UserError naming the file and the remedy.
Must not know what the files hold.
"""

import os
import re
import threading
import zipfile
import zlib
from collections.abc import Iterator

from dnnlib import console
from dnnlib.errors import UserError

IMAGE_SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".tga"])
_MNIST_NAME = re.compile(r".*-images-idx3-ubyte(\.gz)?$")
_TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar")
_LOCAL_HEADER_SIZE = 30  # bytes of a zip member's header before its name
_READ_CHUNK = 1 << 20


def is_hidden(name: str) -> bool:
    """True for what operating systems strew about: .DS_Store, ._picture.png, __MACOSX/..., Thumbs.db."""
    return name.startswith(".") or "/." in name or "__MACOSX/" in name or name.endswith("Thumbs.db")


def is_image_name(name: str) -> bool:
    """True for a visible file whose name ends like a picture's."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not is_hidden(name)


def _plain(name: str) -> str:
    """The name with forward slashes: some packing programs write cat\\1.png, and some unpack it to a file of that very name."""
    return name.replace("\\", "/")


def _walk(path: str) -> Iterator[str]:
    """Relative paths of all files below a folder. Links to folders are followed, except to one that the link itself lies in."""
    pending = [(path, "", frozenset([_identity(path)]))]
    while pending:
        folder, prefix, ancestors = pending.pop()
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError as error:  # left out in silence, it would be a class that nobody misses
            raise UserError(f"Cannot read the folder {folder}: {error.strerror or error}; check its permissions, or move it elsewhere.") from error
        for entry in found:
            if not _is_folder(entry):
                yield prefix + entry.name
                continue
            identity = _identity(entry.path)
            if identity not in ancestors:
                pending.append((entry.path, prefix + entry.name + os.sep, ancestors | {identity}))


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        if entry.is_dir():
            return True
    except OSError:  # a link to itself
        return False
    if entry.is_symlink() and not os.path.exists(entry.path) and not is_image_name(entry.name) and not is_hidden(entry.name):
        # It may have been a class. A picture's link is named when the picture is read.
        raise UserError(f"{entry.path} is a link to {os.readlink(entry.path)}, which is not there; mend or remove the link.")
    return False


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


class FolderFiles:
    """The files below a folder, named by their relative path with forward slashes."""

    def __init__(self, path: str):
        self.path = path
        self._odd_paths: dict[str, str] = {}  # where a file lies whose name has a backslash in it; see _plain
        found = []
        for relative in console.progress(_walk(path), None, f"Listing {path}", unit="file"):
            name = _plain(relative.replace(os.sep, "/"))
            found.append(name)
            if name != relative.replace(os.sep, "/"):
                self._odd_paths[name] = os.path.join(path, relative)
        self.names: list[str] = sorted(found)

    def where(self, name: str) -> str:
        """How to call this file when speaking to a person."""
        return self._odd_paths.get(name) or os.path.join(self.path, *name.split("/"))

    def read(self, name: str) -> bytes:
        try:
            with open(self.where(name), "rb") as file:
                return file.read()
        except OSError as error:
            raise self._unreadable(name, error) from error

    def head(self, name: str, size: int) -> bytes:
        """The first `size` bytes."""
        try:
            with open(self.where(name), "rb") as file:
                return file.read(size)
        except OSError as error:
            raise self._unreadable(name, error) from error

    def size_and_crc(self, name: str) -> tuple[int, int]:
        """Length in bytes and CRC-32; reads the whole file."""
        size = crc = 0
        try:
            with open(self.where(name), "rb") as file:
                for chunk in iter(lambda: file.read(_READ_CHUNK), b""):
                    size += len(chunk)
                    crc = zlib.crc32(chunk, crc)
        except OSError as error:
            raise self._unreadable(name, error) from error
        return size, crc

    def _unreadable(self, name: str, error: OSError) -> UserError:
        return UserError(f"Cannot read {self.where(name)}: {error.strerror or error}; check the file and its permissions.")

    def close(self) -> None:
        """Nothing stays open between reads."""


class ZipFiles:
    """The members of a zip archive, read straight at their offset.

    Safe to share with forked and pickled DataLoader workers: an open file shared by two processes has one read position,
    so every process opens its own.
    """

    def __init__(self, path: str):
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._infos = {
                    _plain(info.filename): (info.header_offset, info.compress_type, info.compress_size, info.file_size, info.CRC, info.flag_bits)
                    for info in archive.infolist()
                    if not _plain(info.filename).endswith("/")
                }
        except zipfile.BadZipFile as error:
            raise UserError(
                f"{path} is not a readable zip archive ({error}); it may be an incomplete copy or download: "
                f"get it again, or make it anew with dataset_tool.py."
            ) from error
        except OSError as error:
            raise UserError(f"Cannot read {path}: {error.strerror or error}; check the file and its permissions.") from error
        self.names: list[str] = sorted(self._infos)
        self._opened = None  # (process id, file, lock)

    def where(self, name: str) -> str:
        """How to call this file when speaking to a person."""
        return f"{name} in {self.path}"

    def size_and_crc(self, name: str) -> tuple[int, int]:
        """Length in bytes and CRC-32 as the archive's directory states them; reads nothing."""
        info = self._infos[name]
        return info[3], info[4]

    def read(self, name: str) -> bytes:
        offset, method, packed_size, size, crc, flags = self._infos[name]
        if flags & 1:
            raise UserError(f"{self.where(name)} is encrypted; unpack the archive and use the folder.")
        if method == zipfile.ZIP_STORED:
            data = self._member_bytes(name, offset, packed_size)
        elif method == zipfile.ZIP_DEFLATED:
            try:
                data = zlib.decompress(self._member_bytes(name, offset, packed_size), wbits=-15, bufsize=max(size, 1))
            except zlib.error as error:
                raise self._damaged(name) from error
        else:
            raise UserError(
                f"{self.where(name)} is packed with an unusual method ({method}); unpack the archive and pack it again with dataset_tool.py."
            )
        if zlib.crc32(data) != crc:
            raise self._damaged(name)
        return data

    def head(self, name: str, size: int) -> bytes:
        """The first `size` bytes; their checksum isn't looked at."""
        offset, method, packed_size, _, _, flags = self._infos[name]
        if method != zipfile.ZIP_STORED or flags & 1:
            return self.read(name)[:size]
        return self._member_bytes(name, offset, min(packed_size, size))

    def _member_bytes(self, name: str, offset: int, packed_size: int) -> bytes:
        # Name and extra field may differ in length between the directory and the member itself, so the member's own
        # header decides. One read fetches it together with the data in nearly all cases.
        guess = _LOCAL_HEADER_SIZE + len(name.encode()) + 64
        block = self._read_at(offset, guess + packed_size)
        if len(block) < _LOCAL_HEADER_SIZE or block[:4] != b"PK\x03\x04":
            raise self._damaged(name)
        start = _LOCAL_HEADER_SIZE + int.from_bytes(block[26:28], "little") + int.from_bytes(block[28:30], "little")
        if start + packed_size > len(block):
            return self._read_at(offset + start, packed_size)
        return block[start : start + packed_size]

    def _read_at(self, offset: int, size: int) -> bytes:
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                self._opened = (os.getpid(), open(self.path, "rb", buffering=0), threading.Lock())
            except OSError as error:
                raise UserError(f"Cannot read {self.path}: {error.strerror or error}; the data set must stay in place while it is in use.") from error
        _, file, lock = self._opened
        with lock:
            file.seek(offset)
            blocks = []
            while size > 0:  # the system may hand out less than asked for
                block = file.read(size)
                if not block:
                    break
                blocks.append(block)
                size -= len(block)
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def _damaged(self, name: str) -> UserError:
        return UserError(
            f"{self.where(name)} is damaged (the bytes do not fit the archive's directory); copy or download "
            f"the archive again, or make it anew with dataset_tool.py."
        )

    def close(self) -> None:
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None

    def __getstate__(self):
        return dict(self.__dict__, _opened=None)


def open_files(path: str):
    """FolderFiles or ZipFiles, by what lies at the path."""
    path = os.fspath(path)
    if os.path.isdir(path):
        return FolderFiles(path)
    if not os.path.exists(path):
        raise UserError(
            f"There is no data set at {path}; check the path (from {os.getcwd()}), or make one with dataset_tool.py --source=... --dest={path}"
        )
    if not os.path.isfile(path):
        raise UserError(f"{path} is neither a file nor a folder but a device or a pipe, which has no end; give a folder or a zip archive.")
    if not path.lower().endswith(".zip") and not zipfile.is_zipfile(path):
        raise UserError(f"{path} is neither a folder nor a zip archive{_what_to_do_with(path)}")
    return ZipFiles(path)


def is_known_archive(path: str) -> bool:
    """Whether dataset_tool.py converts the file, by its name: CIFAR-10's archive, MNIST's images."""
    name = os.path.basename(path)
    return _MNIST_NAME.match(name) is not None or ("cifar" in name.lower() and name.lower().endswith(_TAR_SUFFIXES))


def is_mnist_name(path: str) -> bool:
    """Whether the file is called like MNIST's images."""
    return _MNIST_NAME.match(os.path.basename(path)) is not None


def is_tar_name(path: str) -> bool:
    """Whether the file is called like a tar archive."""
    return path.lower().endswith(_TAR_SUFFIXES)


def _what_to_do_with(path: str) -> str:
    if is_known_archive(path):
        return f"; convert it with dataset_tool.py --source={path} --dest=dataset.zip"
    if is_image_name(path):
        return picture_remedy(path)
    return "; unpack it if it is an archive of another kind, and give the folder that its images lie in."


def picture_remedy(path: str) -> str:
    """What to do when a single picture was given as a data set."""
    return f" but a single picture; give the folder that it lies in: {os.path.dirname(os.path.abspath(path))}"
