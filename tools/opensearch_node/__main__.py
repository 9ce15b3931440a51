"""`python -m tools.opensearch_node [PORT]`: run one OpenSearch node on this machine until Ctrl-C.

The node keeps nothing: its indexes are gone when it ends. It has no native libraries, so set
CLIPTIDE_OPENSEARCH__KNN_ENGINE=lucene.
"""

from __future__ import annotations

import contextlib
import signal
import sys

from tools.opensearch_node.jars import OpenSearchUnavailable
from tools.opensearch_node.node import OpenSearchNode


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9200
    with contextlib.suppress(KeyboardInterrupt):
        try:
            with OpenSearchNode(port) as node:
                print(f"OpenSearch answers at {node.url}", flush=True)  # noqa: T201
                signal.pause()
        except OpenSearchUnavailable as error:
            print(f"OpenSearch: {error}", file=sys.stderr)  # noqa: T201
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
