"""Downloads that go on where they broke off, and are what their authors published."""

from __future__ import annotations

import hashlib
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tqdm import tqdm

from muq_plugins.data.sources import hash_file
from muq_plugins.errors import UserError, refusal
from muq_plugins.files import flush

BLOCK = 1 << 20
TRIES = 5
PAUSE = 1.0
TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True)
class Published:
    """A file as its authors published it."""

    url: str
    # "sha1", "sha256", or "blob": the name that git gives a content
    kind: str
    checksum: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


def download(file: Published, folder: str | Path, progress: bool = True) -> Path:
    """Downloads a file, unless it is there.

    What has arrived is kept beside it, and a broken download goes on with the next
    byte, also in another run. The file gets its name once its checksum is right.
    """
    path = Path(folder, file.name)
    if path.is_file():
        if words := _difference(path, file):
            raise UserError(f"{path} {words}. Remove it, and it is downloaded again.")
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    with tqdm(unit="B", unit_scale=True, desc=path.name, disable=not progress) as bar:
        failures = 0
        while True:
            before = _size(partial)
            try:
                _continue(file.url, partial, bar)
                break
            except urllib.error.HTTPError as error:
                if error.code in (401, 403, 404, 410):
                    raise UserError(
                        f"{file.url} is not served ({error.code} {error.reason}): it "
                        "may have moved. Give --mirror, an address with these files."
                    ) from error
                last: Exception = error
            except (OSError, HTTPException) as error:
                if refusal(error) is not None:  # of the disk, not of the net
                    raise
                last = error
            # As long as bytes arrive, a bad line is no reason to give up.
            failures = 1 if _size(partial) > before else failures + 1
            if failures == TRIES:
                raise UserError(
                    f"{file.url} broke off after {_size(partial):,} bytes ({last}; "
                    f"tried {TRIES} times). The same command goes on from there."
                ) from last
            time.sleep(PAUSE * 2 ** (failures - 1))
    if words := _difference(partial, file):
        partial.unlink()
        raise UserError(
            f"{file.url} {words}. It was removed; run the same command again, or give "
            "--mirror."
        )
    flush(partial)
    os.replace(partial, path)
    return path


def _continue(url: str, partial: Path, bar: Any) -> None:
    """Asks for what is missing of a file and appends it."""
    begin = _size(partial)
    request = urllib.request.Request(url, headers={"User-Agent": "muq-plugins"})
    if begin:
        request.add_header("Range", f"bytes={begin}-")
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if begin and error.code == 416:  # there is nothing behind: it is complete
            return
        raise
    with answer:
        if answer.status != 206:  # all of it, from the first byte
            begin = 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else begin + int(length)
        bar.total = total
        bar.n = begin
        with open(partial, "r+b" if begin else "wb") as file:
            file.seek(begin)
            while block := answer.read(BLOCK):
                file.write(block)
                bar.update(len(block))
        if total is not None and _size(partial) < total:
            raise OSError("the connection was closed")


def _difference(path: Path, file: Published) -> str:
    """Words about a file that is not the published one."""
    found = checksum(path, file.kind)
    if found == file.checksum:
        return ""
    return (
        f"is not what its authors published: {file.kind} {found} instead of "
        f"{file.checksum}"
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def checksum(path: str | Path, kind: str) -> str:
    """The checksum of a file."""
    digest = hashlib.new("sha1" if kind == "blob" else kind)
    if kind == "blob":
        digest.update(f"blob {os.path.getsize(path)}\0".encode())
    return hash_file(path, digest)
