"""Turn a shop's catalogue (CSV) into uploads, one JSON object a line, for `cliptide publish`."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def uploads_of(product: dict[str, str], folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the product's picture and its name. Both link to the product's page."""
    shared = {
        "source": "shop",
        "link": product["page"],
        "metadata": {
            "sku": product["sku"],
            "name": product["name"],
            "colour": product["colour"],
            "price": float(product["price"]),  # a number, so that searches can compare it
            "in_stock": product["in_stock"] == "yes",
        },
    }
    yield {"content_id": f"picture:{product['sku']}", "file": str(folder / product["picture"]), **shared}
    yield {"content_id": f"name:{product['sku']}", "text": product["name"], **shared}


def main(catalogue: Path) -> None:
    with catalogue.open(newline="", encoding="utf-8") as lines:
        for product in csv.DictReader(lines):
            for upload in uploads_of(product, catalogue.parent.resolve()):
                print(json.dumps(upload))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: to_uploads.py CATALOGUE.csv > uploads.jsonl")
    main(Path(sys.argv[1]))
