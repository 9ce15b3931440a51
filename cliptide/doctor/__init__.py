"""The command that tries everything the services need, and says what is wrong and what to set."""
