"""Programs that run inside a sandbox, handed in as text: nothing but Python and its standard library."""

from importlib import resources


def program(name: str) -> str:
    """The text of one of the programs beside this file."""
    return (resources.files(__package__) / f"{name}.py").read_text()
