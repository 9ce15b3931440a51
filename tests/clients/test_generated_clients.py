"""What generators make of the OpenAPI document compiles, and uploads, searches and recommends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.clients.toolchain import HERE, NODE, python, run

SCRIPTS = HERE / "scripts"


def check_outcome(printed: str, content_id: str) -> None:
    outcome: dict[str, Any] = json.loads(printed)
    assert outcome.pop("offset") >= 0
    assert outcome.pop("recommended") >= 1
    assert outcome == {"found": [content_id], "price": 49.5, "refused": "one_query_required"}


def test_redocly_finds_no_error_in_the_document(document: Path, packages: Path) -> None:
    redocly = packages / "@redocly" / "cli" / "bin" / "cli.js"
    printed = run(NODE, redocly, "lint", document, "--format=json", cwd=document.parent)
    assert json.loads(printed)["totals"]["errors"] == 0


def test_openapi_python_client_makes_a_client_that_works(
    address: str, document: Path, tmp_path: Path
) -> None:
    making = ("generate", "--path", document, "--output-path", tmp_path / "generated", "--meta", "none")
    python("-m", "openapi_python_client", *making, cwd=tmp_path)
    shutil.copy(SCRIPTS / "with_openapi_python_client.py", tmp_path)
    check_outcome(python("with_openapi_python_client.py", address, "opc-1", cwd=tmp_path), "opc-1")


@pytest.fixture(scope="module")
def made_by_openapi_generator(
    document: Path, generator_jar: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folders `python` and `typescript-axios`, made in one run, because Java takes seconds to start."""
    folder = tmp_path_factory.mktemp("openapi-generator")
    configurations = []
    for name in ("python", "typescript-axios"):
        configuration = {
            "generatorName": name,
            "inputSpec": str(document),
            "outputDir": str(folder / name),
            "additionalProperties": {"packageName": "generated", "importFileExtension": ".js"},
        }
        configurations.append(folder / f"{name}.json")
        configurations[-1].write_text(json.dumps(configuration))
    run("java", "-XX:TieredStopAtLevel=1", "-jar", generator_jar, "batch", *configurations, cwd=folder)
    return folder


def test_openapi_generator_makes_a_python_client_that_works(
    address: str, made_by_openapi_generator: Path
) -> None:
    folder = made_by_openapi_generator / "python"
    shutil.copy(SCRIPTS / "with_openapi_generator.py", folder)
    check_outcome(python("with_openapi_generator.py", address, "og-1", cwd=folder), "og-1")


@pytest.fixture(scope="module")
def compiled(
    document: Path,
    made_by_openapi_generator: Path,
    packages: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """All three TypeScript clients and what uses them, checked and compiled together."""
    folder = tmp_path_factory.mktemp("typescript")
    (folder / "node_modules").symlink_to(packages)
    (folder / "package.json").write_text('{"type": "module"}')
    for script in (*SCRIPTS.glob("*.ts"), SCRIPTS / "tsconfig.json"):
        shutil.copy(script, folder)
    shutil.copytree(made_by_openapi_generator / "typescript-axios", folder / "typescript-axios")
    making = {
        "input": str(document),
        "output": {"path": "hey-api", "module": {"extension": ".js"}},
        "plugins": ["@hey-api/client-fetch", "@hey-api/typescript", "@hey-api/sdk"],
    }
    (folder / "openapi-ts.config.mjs").write_text(f"export default {json.dumps(making)};")
    run(NODE, packages / "@hey-api" / "openapi-ts" / "bin" / "run.js", cwd=folder)
    openapi_typescript = packages / "openapi-typescript" / "bin" / "cli.js"
    run(NODE, openapi_typescript, document, "-o", folder / "openapi-typescript.ts", cwd=folder)
    run(NODE, packages / "typescript" / "bin" / "tsc", "-p", folder, cwd=folder)
    return folder / "compiled"


@pytest.mark.parametrize("name", ["typescript_axios", "hey_api", "openapi_typescript"])
def test_a_typescript_client_compiles_and_works(address: str, compiled: Path, name: str) -> None:
    printed = run(NODE, f"with_{name}.js", address, f"{name}-1", cwd=compiled)
    check_outcome(printed, f"{name}-1")
