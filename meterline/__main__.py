"""`python -m meterline` is the `meterline` command."""

from meterline.server.cli import main

main()
