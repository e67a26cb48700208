"""Clones on the host, runs sandboxes, executes tool calls in them and verifies what came out."""
