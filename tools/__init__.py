"""Programs for developers: they write the generated tables, golden files and schema releases."""
