"""sandbox_runner: everything that touches a stranger's code.

Hears run.requested, sandbox.lost, question.asked and answered, solution.proposed, run.cancelled and finished.
Decides when a run gets a sandbox, when it loses it, and what is to be verified.
Does clones on the host side, sandboxes on Podman, tool calls, checkpoints, verification in fresh sandboxes.
"""
