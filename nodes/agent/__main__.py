"""``python -m nodes.agent``."""

from .main import main

main()
