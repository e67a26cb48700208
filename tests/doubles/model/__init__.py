"""The Claude double: a Messages API that plays scripts, held to the SDK's own types."""

from tests.doubles.model.double import ClaudeDouble
from tests.doubles.model.faults import Fault
from tests.doubles.model.script import Say, Step, Use, first_user_text

__all__ = ["ClaudeDouble", "Fault", "Say", "Step", "Use", "first_user_text"]
