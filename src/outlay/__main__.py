"""`python -m outlay`."""

from .cli import main

main()
