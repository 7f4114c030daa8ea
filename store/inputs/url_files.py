"""Datasets published as lists of urls: which local file is which url's image, said by the user or by its
name."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from store.errors import InputError
from store.inputs.annotation_files import separated_lines

LOCAL_FILES = "images.tsv"
LOCAL_FILES_WHAT = "optional: url TAB file name, of each image that was fetched"
LOCAL_FILES_SOURCE = "written by whoever fetched the images; docs/datasets.md shows how"


def local_names(path: Path) -> dict[str, str]:
    """url -> name of the file, of `images.tsv`. A folder before the name is ignored: names are unique.

    Raises InputError, with the line, for a url or a name that comes twice.
    """
    names: dict[str, str] = {}
    line_of: dict[str, str] = {}
    for where, (url, file) in separated_lines(path, "\t", ("url", "file")):
        name = file.replace("\\", "/").rsplit("/", 1)[-1]
        if url in names or name in line_of:
            what = f"url {url!r}" if url in names else f"file {name!r}"
            raise InputError(f"{where}: {what} comes twice; give every image a name of its own")
        names[url] = name
        line_of[name] = where
    return names


def name_of_url(where: str, url: str) -> str:
    """The file name at the end of a url; raises InputError if it has none."""
    name = urlsplit(url).path.rsplit("/", 1)[-1]
    if not url.startswith(("http://", "https://")) or not name:
        raise InputError(f"{where}: {url[:80]!r} is no url of an image; is it the published file?")
    return name
