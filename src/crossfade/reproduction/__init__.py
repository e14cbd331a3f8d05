"""A paper's own protocol on the user's machine, its numbers beside the published ones. Nothing is downloaded unasked.

::

    requirements (what must be where) ──▶ run (encode, train, measure) ──▶ tables (measured beside published)
"""

from crossfade.reproduction.requirements import Missing, UpgradePair, missing
from crossfade.reproduction.run import Reproduction, reproduce

__all__ = ["Missing", "Reproduction", "UpgradePair", "missing", "reproduce"]
