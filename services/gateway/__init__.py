"""gateway: where GitHub and operators come in.

Hears signed webhooks, and operators' requests.
Decides which of them ask for work, answer a question or end a run, and who may do so.
Does remember every delivery in its own inbox before it answers, and relay it to the log.
"""
