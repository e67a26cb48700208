"""What the services agree on: facts, their envelope, subjects and bytes. It imports no service."""
