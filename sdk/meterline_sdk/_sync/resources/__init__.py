# Written by sdk/unasync.py from _async/resources/__init__.py: change that file.
"""The parts of the API, one file each."""
