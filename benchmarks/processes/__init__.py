"""The processes that a figure starts and looks at."""
