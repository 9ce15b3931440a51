import urllib.error
import urllib.request

import pytest

from cliptide.demo.gallery_server import serving_page
from tests.consumer.running import PATIENCE_SECONDS


def test_the_gallery_is_served_while_the_demo_runs() -> None:
    with serving_page("<p>gállery</p>") as address:
        with urllib.request.urlopen(address, timeout=PATIENCE_SECONDS) as answer:
            assert answer.read().decode() == "<p>gállery</p>"
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        with pytest.raises(urllib.error.HTTPError, match="404") as refused:
            urllib.request.urlopen(address + "../secrets", timeout=PATIENCE_SECONDS)
        refused.value.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=PATIENCE_SECONDS)
