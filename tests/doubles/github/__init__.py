"""A GitHub that stands in for the real one in tests and in the demo: stateful, over HTTP, with verbs."""

from tests.doubles.github.double import GitHubDouble

__all__ = ["GitHubDouble"]
