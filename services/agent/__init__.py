"""agent: the Claude loop, outside the sandbox.

Hears sandbox.ready and verification.finished.
Decides the next step of a run from its recorded turns, tool results and budget.
Does model turns, tool calls, questions, answers and proposals; each is a fact before the next begins.
"""
