"""What every service is built from: the log, the bus, settings, errors, serve."""
