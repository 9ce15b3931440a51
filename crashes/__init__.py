"""The crash campaign: it kills writers, cuts the power, damages files, and checks the index after each."""
