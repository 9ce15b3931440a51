"""Which package may import which, and where each foreign library is imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "schemas",
    "event_log",
    "clip_index",
    "opensearch_engine",
    "service",
    "consumer",
    "query_api",
    "cliptide",
)
NOT_INSTALLED = ("fakes", "crashes", "benchmarks", "tools", "tests")
"""They import the packages, and among themselves only those named before."""

ALLOWED = {
    "schemas": set(),
    "event_log": set(),
    "clip_index": set(),
    "opensearch_engine": {"clip_index"},
    "service": {"clip_index"},
    "consumer": {"schemas", "event_log", "clip_index", "opensearch_engine", "service"},
    "query_api": {"schemas", "event_log", "clip_index", "opensearch_engine", "service"},
    "cliptide": {
        "schemas",
        "event_log",
        "clip_index",
        "opensearch_engine",
        "service",
        "consumer",
        "query_api",
    },
}

HOMES = {
    "confluent_kafka": ("event_log/",),
    "torch": (
        "clip_index/encoder/open_clip/",
        "clip_index/encoder/image_resampling.py",
        "cliptide/demo/",
        "cliptide/finetuning/",
    ),
    "open_clip": ("clip_index/encoder/open_clip/", "cliptide/demo/", "cliptide/finetuning/"),
    "faiss": ("clip_index/vectors/",),
    "PIL": (
        "clip_index/encoder/images.py",
        "clip_index/encoder/image_",
        "cliptide/demo/",
    ),
    "fastavro": ("schemas/",),
    "aiohttp": ("query_api/", "consumer/references/"),
    "obstore": (
        "service/buckets.py",
        "clip_index/storage/buckets/object_bucket.py",
        "consumer/references/",
        "query_api/uploads/contents_store.py",
    ),
    "pyarrow": ("clip_index/",),
    "opensearchpy": ("opensearch_engine/connection.py",),
    "botocore": ("opensearch_engine/connection.py",),
    "uvloop": ("service/process/event_loop.py",),
    "opentelemetry": ("service/tracing.py", "query_api/", "consumer/", "cliptide/publishing/"),
}


FLOORS: dict[str, tuple[tuple[str, ...], ...]] = {
    "schemas": (
        ("framed_writing",),
        ("codec", "dead_letters"),
        ("mapping", "registered"),
        ("avro", "cloud_events"),
        ("json_format",),
        (
            "base64_text",
            "clock_time",
            "framing",
            "json_size",
        ),
        ("validation",),
        ("errors", "events"),
    ),
    "event_log": (
        ("kafka", "memory", "publisher", "schema_registry"),
        ("errors", "source"),
        ("partitioning", "records"),
    ),
    "clip_index": (
        ("reading", "writing"),
        ("searching",),
        ("views",),
        ("fold", "patching", "segments"),
        ("masks",),
        ("generations", "indexes", "row_filter", "vectors"),
        ("encoder", "storage"),
        ("content", "errors", "guarantees"),
    ),
    "opensearch_engine": (
        ("reader", "shards"),
        ("progress", "snapshot"),
        ("index", "rankings"),
        ("filters", "layout"),
        ("documents",),
        ("connection",),
        ("errors",),
    ),
    "service": (
        (
            "buckets",
            "command_line",
            "encoder",
            "program_metrics",
            "sections",
            "small_server",
            "tracing",
        ),
        ("environment", "host_names", "process"),
        ("logs", "value_errors"),
    ),
    "consumer": (
        ("__main__",),
        ("starting",),
        ("health",),
        ("app", "settings"),
        ("opened_index", "pipeline"),
        ("directory_shards",),
        ("intake",),
        ("encoding", "preparation"),
        ("backlog", "references", "registry", "writing"),
        ("notices", "pipeline_state", "quarantine"),
        ("tasks", "telemetry"),
        ("dead_letters", "tracing"),
        ("backoff", "errors", "saved_encodings", "turns"),
    ),
    "query_api": (
        ("__main__",),
        ("options_from_settings",),
        ("opened_index", "opened_uploads"),
        ("root_candidates",),
        ("app", "settings"),
        ("route_table",),
        ("api_docs", "compat", "contents", "health", "page"),
        ("recommend", "uploads"),
        ("search",),
        ("answers", "http", "swap"),
        ("percentiles",),
        ("contract", "encoding", "hosts"),
        ("serving",),
        ("errors", "telemetry"),
    ),
    "query_api.http": (
        ("entrance",),
        ("error_answers",),
        ("observation",),
        ("connections", "guards"),
        ("bodies", "json_answer", "answer_headers", "entity_tags"),
    ),
    "query_api.search": (
        ("routes", "sample_routes"),
        ("offers",),
        ("embed", "query_sample", "recall_watch", "shared_searches"),
        ("query_resolution", "quick_searches", "retrieval"),
        ("paging", "results"),
        ("ranking",),
        ("request",),
    ),
    "cliptide": (
        ("__main__", "reindexing"),
        ("evaluation",),
        ("demo",),
        ("command_table",),
        ("finetuning",),
        ("pairs",),
        ("doctor", "services", "snapshot", "verify"),
        ("dead_letters", "mapping"),
        ("publishing",),
        ("searching",),
        ("terminal",),
    ),
}
"""The folders and modules of each package, the upper floors first. Imports go down, never up or sideways."""

KNOW_A_REQUEST = (
    "routes.py",
    "reading.py",
    "api_docs.py",
    "health.py",
    "compat/",
    "contents/",
    "http/",
    "swap/holding.py",
    "contract/route.py",
    "search/embed.py",
    "search/offers.py",
    "telemetry/metrics_app.py",
)
"""Where `query_api` handles a request of aiohttp. Everything else takes plain arguments."""


def imports_of(path: Path) -> Iterator[str]:
    """Yield the top-level packages that a module imports anywhere in its code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def modules_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_those_below_it(package: str) -> None:
    for path in modules_of(package):
        ours = set(imports_of(path)) & set(PACKAGES) - {package}
        assert ours <= ALLOWED[package], f"{path.relative_to(ROOT)} imports {ours - ALLOWED[package]}"


def imported_modules(path: Path, package: str) -> Iterator[str]:
    """Yield the folders and modules of its own package that a module imports, by their first name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == package:
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
            yield str(node.module).removeprefix(f"{package}.").split(".")[0]
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names if alias.name.startswith(f"{package}."))
            yield from (name.removeprefix(f"{package}.").split(".")[0] for name in names)


@pytest.mark.parametrize("package", FLOORS)
def test_imports_inside_a_package_go_down_its_floors(package: str) -> None:
    floor_of = {name: number for number, names in enumerate(FLOORS[package]) for name in names}
    folder = package.replace(".", "/")
    for path in modules_of(folder):
        own = path.relative_to(ROOT / folder).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        assert own in floor_of, f"{own} has no floor in {package}"
        for name in set(imported_modules(path, package)) - {own}:
            assert floor_of[name] > floor_of[own], f"{path.relative_to(ROOT)} imports {package}.{name}"


def test_only_routes_and_what_reads_for_them_know_a_request() -> None:
    for path in modules_of("query_api"):
        name = path.relative_to(ROOT / "query_api").as_posix()
        if "web.Request" in path.read_text().replace("web.RequestKey", ""):
            assert name.startswith(KNOW_A_REQUEST) or name.endswith(KNOW_A_REQUEST), name


@pytest.mark.parametrize("library", HOMES)
def test_a_foreign_library_stays_at_home(library: str) -> None:
    for package in PACKAGES:
        for path in modules_of(package):
            name = path.relative_to(ROOT).as_posix()
            if library in set(imports_of(path)):
                assert name.startswith(HOMES[library]), f"{name} imports {library}"


def test_importing_the_engine_does_not_import_torch() -> None:
    paths = [path.relative_to(ROOT).with_suffix("") for path in modules_of("clip_index")]
    modules = [".".join(path.parts) for path in paths if "open_clip" not in path.parts]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("heavy", ["torch", "open_clip", "sklearn", "scipy"])
def test_starting_the_query_service_imports_nothing_heavy_before_it_is_needed(heavy: str) -> None:
    code = f"import sys, query_api.__main__; sys.exit({heavy!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_no_test_or_tool_is_imported_by_a_package() -> None:
    for package in PACKAGES:
        for path in modules_of(package):
            assert not set(NOT_INSTALLED) & set(imports_of(path)), path


@pytest.mark.parametrize("folder", NOT_INSTALLED)
def test_what_is_not_installed_imports_downwards(folder: str) -> None:
    above = set(NOT_INSTALLED[NOT_INSTALLED.index(folder) + 1 :])
    for path in modules_of(folder):
        assert not above & set(imports_of(path)), path


@pytest.mark.parametrize("package", PACKAGES)
def test_a_time_out_is_caught_under_the_name_that_every_python_gives_it(package: str) -> None:
    """Before Python 3.11, `except TimeoutError` does not catch the time-outs of futures and asyncio."""
    for path in modules_of(package):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and node.type is not None:
                caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
                names = [one.id for one in caught if isinstance(one, ast.Name)]
                assert "TimeoutError" not in names, f"{path.relative_to(ROOT)}:{node.lineno}"
