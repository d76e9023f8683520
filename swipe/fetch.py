"""Public corpora from their homes to this disk: the only part of the project that downloads.

::

    how_we_swipe/logs/*.log, logs/fetched.json
    futo/train.jsonl, train.jsonl.fetched.json ...

``fetched.json`` says where the content came from, and the SHA-256 of what arrived and of each file
that was kept. A second fetch compares the files with it and downloads nothing.

How We Swipe's archive also holds a file of personal details per writer. Only the logs are taken
out of it, and the archive is removed.

What it leaves out: the transfer (`swipe.download`), and reading (`swipe.sources`).
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from swipe.download import Stated, download, forget
from swipe.errors import GateError, UsageError
from swipe.files import cannot_write, replacing_folder, sha256_file, write_text_atomic

FETCHED: Final = "fetched.json"
LOGS: Final = "logs"
MAX_UNPACKED: Final = 4 * 1024**3
"""Bytes of logs; the archive of 70 MB holds far less, and more would be a zip bomb."""

_HUB: Final = "https://huggingface.co/datasets/futo-org/swipe.futo.org/resolve/main/"


@dataclass(frozen=True, slots=True)
class PublicFile:
    """A file of a corpus: its path in the corpus's folder (and on a mirror), and its home."""

    path: str
    url: str


@dataclass(frozen=True, slots=True)
class PublicCorpus:
    """A corpus that anyone can download.

    Attributes:
        folder: where it goes when nothing else is said.
        page: the page that describes it.
        configs: its files by name of the configuration.
    """

    folder: str
    page: str
    configs: Mapping[str, tuple[PublicFile, ...]]


def _hub(*paths: str) -> tuple[PublicFile, ...]:
    return tuple(PublicFile(path, _HUB + path) for path in paths)


CORPORA: Final[Mapping[str, PublicCorpus]] = {
    "how-we-swipe": PublicCorpus(
        "how_we_swipe",
        "https://osf.io/sj67f/",
        {"default": (PublicFile("swipelogs.zip", "https://osf.io/download/x4yjn/"),)},
    ),
    "futo": PublicCorpus(
        "futo",
        "https://huggingface.co/datasets/futo-org/swipe.futo.org",
        {"default": _hub("train.jsonl", "dev.jsonl", "test.jsonl")}
        | {f"swipe-{n}": _hub(f"swipe-{n}/swipe{n}.jsonl") for n in (2, 3, 4, 5)},
    ),
}


@dataclass(frozen=True, slots=True)
class Fetched:
    """What is here of one public file, and where it came from.

    Attributes:
        url: where it was downloaded.
        sha256: SHA-256 of what arrived.
        verified: what it was compared with, beside its length: "SHA-256 stated by the server",
            "CRC-32 of the archive" or "length only".
        files: SHA-256 of each file that was kept, by name.
    """

    url: str
    sha256: str
    verified: str
    files: Mapping[str, str]


def files_of(name: str, config: str) -> tuple[PublicFile, ...]:
    """The files of one configuration of a public corpus.

    Raises:
        UsageError: no such corpus or configuration.
    """
    if name not in CORPORA:
        raise UsageError(f"no public corpus {name!r}", fix=f"use one of {', '.join(CORPORA)}")
    configs = CORPORA[name].configs
    if config not in configs:
        raise UsageError(
            f"{name} has no configuration {config!r}", fix=f"use --config {' or '.join(configs)}"
        )
    return configs[config]


def fetch(
    file: PublicFile,
    out: Path,
    progress: Callable[[int, int | None], None],
    mirror: str | None = None,
) -> tuple[Path, Fetched, bool]:
    """Have `file` in `out`: downloaded and verified, or found as it was fetched before.

    Args:
        file: of `files_of`.
        out: the corpus's folder; created when missing.
        progress: told how many bytes are there, and of how many if known.
        mirror: address of a folder with the same paths, to download from instead.

    Returns:
        The file, or the folder of logs that an archive held; its record; whether it is new.

    Raises:
        DataError: the server cannot be reached, refuses, or keeps ending early.
        GateError: what arrived, or what is here from an earlier fetch, is damaged.
        UsageError: something else is in the way, or `out` cannot be written.
    """
    archive = file.path.endswith(".zip")
    target = out / LOGS if archive else out / file.path
    record = target / FETCHED if archive else target.with_name(f"{target.name}.{FETCHED}")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        return target, _unchanged(target, record), False
    url = f"{mirror.rstrip('/')}/{file.path}" if mirror else file.url
    part = out / f"{file.path}.part"
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(part, error) from error
    stated, digest = download(url, part, progress)
    if archive:
        fetched = _unpack(part, target, stated, digest)
        forget(part)
        return target, fetched, True
    # The record first: a kill between the two leaves a complete part, which is gone on with.
    fetched = Fetched(url, digest, _proof(stated, "length only"), {target.name: digest})
    write_text_atomic(record, _json(fetched))
    try:
        os.replace(part, target)
    except OSError as error:
        raise cannot_write(target, error) from error
    forget(part)
    return target, fetched, True


def _unchanged(target: Path, record: Path) -> Fetched:
    """The record of `target`, when its files are what the record says.

    Raises:
        GateError: a file is damaged or missing.
        UsageError: there is no record, so `target` is someone else's.
    """
    try:
        fields: dict[str, Any] = json.loads(record.read_bytes())
        fetched = Fetched(**fields)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{target} is there already, and nothing says that it was fetched",
            fix="move it away, or choose another place with --out",
        ) from error
    for name, digest in fetched.files.items():
        path = record.parent / name
        if not path.is_file() or sha256_file(path) != digest:
            raise GateError(
                f"{path} is not the file that was fetched: it was altered, damaged or removed",
                fix=f"move {target} away and fetch again",
            )
    return fetched


def _unpack(part: Path, target: Path, stated: Stated, digest: str) -> Fetched:
    """Take the logs, and nothing else, out of an archive; removes the archive when it is damaged.

    Raises:
        GateError: it is no sound archive, holds no log, or a name in it leads elsewhere.
        UsageError: `target` cannot be written.
    """
    try:
        with (
            zipfile.ZipFile(part) as archive,
            replacing_folder(
                target, ours=lambda found: (found / FETCHED).is_file(), kind="fetched corpus"
            ) as folder,
        ):
            for member, name in _logs(archive).items():
                with archive.open(member) as packed, (folder / name).open("xb") as log:
                    shutil.copyfileobj(packed, log)
            files = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
            fetched = Fetched(stated.url, digest, _proof(stated, "CRC-32 of the archive"), files)
            write_text_atomic(folder / FETCHED, _json(fetched))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        forget(part)
        raise GateError(
            f"{stated.url} is no sound archive: {error}",
            fix="run the same command again; if that ends here too, name another --mirror",
        ) from error
    return fetched


def _logs(archive: zipfile.ZipFile) -> dict[str, str]:
    """Names of the logs in `archive`, and the plain file names they get."""
    logs: dict[str, str] = {}
    for member in archive.namelist():
        path = PurePosixPath(member)
        # macOS adds "._" twins of every file, which hold no log.
        if path.suffix != ".log" or path.name.startswith("."):
            continue
        if path.is_absolute() or ".." in path.parts or "\\" in member:
            raise zipfile.BadZipFile(f"{member!r} leads out of its folder")
        logs[member] = path.name
    if len(set(logs.values())) != len(logs):
        raise zipfile.BadZipFile("two logs have the same name")
    if sum(archive.getinfo(member).file_size for member in logs) > MAX_UNPACKED:
        raise zipfile.BadZipFile(f"its logs are larger than {MAX_UNPACKED:,} bytes")
    if not logs:
        raise zipfile.BadZipFile("it holds no .log file")
    return logs


def _proof(stated: Stated, otherwise: str) -> str:
    return "SHA-256 stated by the server" if stated.sha256 else otherwise


def _json(fetched: Fetched) -> str:
    return json.dumps(asdict(fetched), indent=2) + "\n"
