"""`python -m tools.write_generated`: write the generated parts of the documents again.

A generated part stands between two comments that name it. `tests/test_documentation.py`
compares each part with what the code says now.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.published import build_short_table
from benchmarks.published import build_table as build_figures_table
from tools.event_documents import write_documents
from tools.flags_table import build_table as build_flags_table
from tools.folders_table import build_table as build_folders_table
from tools.helm_schema import build_schema, read_alerts
from tools.kubernetes_alerts import build_rules
from tools.runbooks import build_dashboard as build_runbooks
from tools.settings_table import build_table as build_settings_table

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class GeneratedPart:
    """A named part of a page, and the function that builds its text from the code."""

    name: str
    page: str
    build: Callable[[], str]

    def read(self) -> str:
        """Return the text that the page holds now."""
        found = self._pattern.search((ROOT / self.page).read_text())
        if found is None:
            raise LookupError(f"{self.page} has no part {self.name!r}")
        return found[2].strip()

    def write(self) -> None:
        path, built = ROOT / self.page, self.build()
        written = self._pattern.sub(lambda found: f"{found[1]}\n{built}\n\n{found[3]}", path.read_text())
        path.write_text(written)

    @property
    def _pattern(self) -> re.Pattern[str]:
        start, end = rf"<!-- {self.name}: generated.*?-->\n", f"<!-- end of {self.name} -->"
        return re.compile(f"({start})(.*?)({end})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class GeneratedFile:
    """A whole file, and the function that builds its text."""

    name: str
    page: str
    build: Callable[[], str]

    def read(self) -> str:
        return (ROOT / self.page).read_text().strip()

    def write(self) -> None:
        (ROOT / self.page).write_text(self.build() + "\n")


PARTS: tuple[GeneratedPart | GeneratedFile, ...] = (
    GeneratedPart("settings", "docs/settings.md", build_settings_table),
    GeneratedPart("flags", "docs/settings.md", build_flags_table),
    GeneratedPart("figures", "docs/figures.md", build_figures_table),
    GeneratedPart("figures in short", "README.md", build_short_table),
    GeneratedPart("folders", "ARCHITECTURE.md", build_folders_table),
    GeneratedFile("runbooks", "deploy/grafana/dashboards/runbooks.json", build_runbooks),
    GeneratedFile("alerts", "deploy/kubernetes/overlays/production/alerts.yaml", build_rules),
    GeneratedFile("alerts of the chart", "deploy/helm/cliptide/files/alerts.yml", read_alerts),
    GeneratedFile("schema of the chart's values", "deploy/helm/cliptide/values.schema.json", build_schema),
)


def main() -> None:
    for part in PARTS:
        part.write()
    write_documents()


if __name__ == "__main__":
    main()
