"""Process 1 of a sandbox: runs tools for the runner, Python's standard library only.

This folder is mounted read-only into the container. Nothing it does is trusted by the host: a change is
recomputed there from its bytes (``services.sandbox_runner.change``). Every sandbox holds a copy in memory, so
modules that cost much are left alone: ``typing``, ``pathlib``, ``subprocess`` and what they draw in are
half of a small server.
"""
