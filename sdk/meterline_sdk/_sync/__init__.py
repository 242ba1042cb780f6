# Written by sdk/unasync.py from _async/__init__.py: change that file.
"""The asynchronous client; the synchronous one is written from it."""
