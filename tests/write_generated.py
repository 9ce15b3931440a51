"""`python -m tests.write_generated`: bring README's generated tables up to date."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.published import build_table as build_figures_table
from tests.flags_table import build_table as build_flags_table
from tests.settings_table import build_table as build_settings_table

README = Path(__file__).resolve().parent.parent / "README.md"


def main() -> None:
    text = README.read_text()
    tables = {
        "settings": build_settings_table(),
        "flags": build_flags_table(),
        "figures": build_figures_table(),
    }
    for name, table in tables.items():
        pattern = rf"(<!-- {name}: generated.*?-->\n).*?(<!-- end of {name} -->)"
        text = re.sub(pattern, lambda m, t=table: f"{m[1]}\n{t}\n\n{m[2]}", text, flags=re.DOTALL)
    README.write_text(text)


if __name__ == "__main__":
    main()
