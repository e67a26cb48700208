"""publisher: everything that people see on GitHub.

Hears run.requested, turn.taken, questions, answers, verifications, failures and cancellations.
Decides what to say and what to publish, once per run.
Does one comment edited in place, branch, commit and draft pull request through GitHub's API.
"""
