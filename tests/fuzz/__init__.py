"""A scripted grid of bad calls of everything public, each judged: `python -m tests.fuzz` (see `__main__`)."""
