"""Rankings: which ones a query asks for, how they are found, and what their scores mean."""
