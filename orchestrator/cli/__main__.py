"""`python -m orchestrator.cli` is `muster`."""

from .main import main

main()
