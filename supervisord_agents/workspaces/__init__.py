"""Views of a workspace that are not the directory itself, and what becomes of the changes made in them.

A task's attempt gets a private copy, or a copy-on-write view. When it is over, its changes are put aside in the state directory,
until somebody applies or discards them. Whatever touches a user's files runs in a process of its own, with the rights of the
workspace's owner (hand.py); the daemon's part is keeper.py.
"""
