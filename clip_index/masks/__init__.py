"""Which rows of a segment pass a filter: masks of its columns, and orders of values that lead to few rows."""
