"""history: what happened, kept and told.

Hears every fact.
Decides nothing.
Does the append-only archive with its hash chain, read models from it, and answers to queries.
"""
