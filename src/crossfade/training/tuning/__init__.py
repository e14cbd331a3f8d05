"""Stage 2 of XBT: image–text tuning of the new model through φ; importing it does not import torch.

::

    pairs ──▶ samples ──▶ task (the losses) ──▶ crossfade.training.train ──▶ TunedEncoder
"""

from crossfade.training.tuning.config import XBTTuning
from crossfade.training.tuning.run import tune, tune_towers

__all__ = ["XBTTuning", "tune", "tune_towers"]
