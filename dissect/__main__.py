"""`python -m dissect`."""

from dissect.cli import main

main()
