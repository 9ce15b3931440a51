"""What every service process begins with: settings from its environment, and logs."""
