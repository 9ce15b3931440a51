"""Programs for developers: they write the generated tables, the golden files and the schema releases."""
