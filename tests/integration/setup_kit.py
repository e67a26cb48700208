"""Setups on real Podman, with this machine's own package indexes: where they are is asked, never written."""
