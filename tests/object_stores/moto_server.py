"""moto's S3 server, one request at a time: `python tests/object_stores/moto_server.py PORT`.

With its threads, two puts of one object that must be absent both succeed now and then, so a test of commits
would prove nothing.
"""

from __future__ import annotations

import logging
import sys

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = DomainDispatcherApplication(create_backend_app)
    make_server("127.0.0.1", int(sys.argv[1]), application, threaded=False).serve_forever()
