"""Keep the index in step with a folder of photographs, over HTTP."""

from __future__ import annotations

import argparse
import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

SOURCE = "photos"
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif", ".tif", ".tiff"}
PAGE = 100


@dataclass(frozen=True)
class Service:
    """The calls of the query service that this program needs."""

    url: str
    api_key: str | None = None

    def versions(self) -> dict[str, int]:
        """Return the photographs that are searchable, with the version of each."""
        found: dict[str, int] = {}
        request: dict[str, Any] = {
            "k": PAGE,
            "modality": "image",
            "filter": {"must": [{"field": "source", "equals": SOURCE}]},
        }
        while True:
            page = self._call("POST", "/v1/browse", json.dumps(request).encode(), "application/json")
            for hit in page["results"].get("image", {"hits": []})["hits"]:
                found[hit["content_id"]] = hit["version"]
            if page["next_cursor"] is None:
                return found
            request["cursor"] = page["next_cursor"]

    def upload(self, content_id: str, version: int, path: Path) -> dict[str, Any]:
        fields = {
            "content_id": content_id,
            "version": version,
            "source": SOURCE,
            "occurred_at": version // 1_000_000,  # milliseconds since 1970
            "metadata": json.dumps(metadata_of(content_id)),
        }
        query = f"/v1/contents?{urlencode(fields)}"
        return self._call("POST", query, path.read_bytes(), "application/octet-stream")

    def delete(self, content_id: str) -> dict[str, Any]:
        return self._call("DELETE", f"/v1/contents/{quote(content_id, safe='')}?source={SOURCE}")

    def _call(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        if body is not None:
            headers["Content-Type"] = kind
        request = urllib.request.Request(self.url + path, data=body, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


def metadata_of(content_id: str) -> dict[str, str]:
    """Return the folder in which a photograph lies; nothing for one that lies in none."""
    folder = Path(content_id).parent.as_posix()
    return {} if folder == "." else {"folder": folder}


def photographs_in(folder: Path) -> dict[str, Path]:
    """Return every picture below the folder by its content id, which is its path below the folder."""
    paths = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in PICTURES and path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}


def sync(service: Service, folder: Path) -> dict[str, int]:
    """Bring the index in step once. Return the offsets behind the last changes, for `min_offsets`."""
    indexed, present = service.versions(), photographs_in(folder)
    changed = {name: path for name, path in present.items() if path.stat().st_mtime_ns != indexed.get(name)}
    gone = sorted(indexed.keys() - present.keys())
    offsets: dict[str, int] = {}
    refused = 0
    for name, path in changed.items():
        try:
            answer = service.upload(name, path.stat().st_mtime_ns, path)
        except urllib.error.HTTPError as error:  # the service says what is wrong with the file
            print(f"not taken: {name}: {json.load(error)['error']['message']}")
            refused += 1
            continue
        offsets[answer["shard"]] = answer["next_offset"]
    for name in gone:
        answer = service.delete(name)
        offsets[answer["shard"]] = answer["next_offset"]
    print(f"{len(changed) - refused} uploaded, {len(gone)} deleted, {len(present) - len(changed)} unchanged")
    return offsets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", default=os.environ.get("CLIPTIDE_QUERY_URL", "http://127.0.0.1:8080"))
    parser.add_argument("--every", type=float, help="look again after this many seconds, until Ctrl-C")
    options = parser.parse_args()
    if not options.folder.is_dir():  # an unmounted disk must not delete every photograph
        parser.error(f"{options.folder} is not a folder")
    service = Service(options.url.rstrip("/"), os.environ.get("CLIPTIDE_API_KEY"))
    offsets = sync(service, options.folder)
    while options.every:
        time.sleep(options.every)
        offsets = sync(service, options.folder)
    print(json.dumps({"min_offsets": offsets}))


if __name__ == "__main__":
    main()
