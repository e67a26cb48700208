"""The lock files, and what must hold for them."""
