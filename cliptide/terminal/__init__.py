"""What all commands share: options, connections, logs and progress at a terminal."""
