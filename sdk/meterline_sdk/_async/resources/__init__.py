"""The parts of the API, one file each."""
