"""One folder an experiment, each with a ``run.py`` that prints its table and can write its ``result.json``."""
