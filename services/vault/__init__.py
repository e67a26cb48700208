"""Hears: questions on ``vault.v1.<service>.<thing>``, beside the path of an issue.
Decides: whether that service is entitled to that thing, and how narrow a token its step needs.
Does: keeps credentials under envelope encryption; mints, caches and hands out short-lived tokens.
"""
