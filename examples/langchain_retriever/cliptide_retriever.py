"""A LangChain retriever that searches with cliptide."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from typing import Any, Literal

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever


class CliptideRetriever(BaseRetriever):
    """Finds texts and pictures for a text query.

    Without a modality the best texts come first, then the best pictures, `k` of each, because a text
    query scores texts much higher.
    """

    url: str = "http://127.0.0.1:8080"
    api_key: str | None = None
    k: int = 5
    modality: Literal["text", "image"] | None = None
    filter: dict[str, Any] | None = None
    min_percentile: float | None = None
    timeout_seconds: float = 30.0

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        results = self._search(query)["results"]
        return [
            _document(hit) for kind in ("text", "image") for hit in results.get(kind, {"hits": []})["hits"]
        ]

    def _search(self, query: str) -> dict[str, Any]:
        optional = {"modality": self.modality, "filter": self.filter, "min_percentile": self.min_percentile}
        request = {"text": query, "k": self.k, "include": ["text", "metadata"]}
        request |= {name: value for name, value in optional.items() if value is not None}
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        call = urllib.request.Request(
            f"{self.url.rstrip('/')}/v1/search", data=json.dumps(request).encode(), headers=headers
        )
        with urllib.request.urlopen(call, timeout=self.timeout_seconds) as answer:
            return json.load(answer)


def _document(hit: dict[str, Any]) -> Document:
    own = {name: hit[name] for name in ("content_id", "modality", "score", "link")}
    content = hit.get("text") or hit["link"] or hit["content_id"]
    return Document(
        id=hit["content_id"], page_content=content, metadata={**(hit.get("metadata") or {}), **own}
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit('usage: cliptide_retriever.py "what to look for"')
    retriever = CliptideRetriever(url=os.environ.get("CLIPTIDE_QUERY_URL", "http://127.0.0.1:8080"))
    for document in retriever.invoke(sys.argv[1]):
        print(f"{document.metadata['score']:.2f}  {document.page_content}")
