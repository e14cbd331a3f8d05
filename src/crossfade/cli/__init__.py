"""The command line: one file a verb, each of them thin: read the options, call the library, print."""

from crossfade.cli.app import main

__all__ = ["main"]
