"""`python -m graphexec` is the program `graphexec`."""

from graphexec.cli import main

main()
