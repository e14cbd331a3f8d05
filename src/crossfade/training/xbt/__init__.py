"""Both stages of XBT from a text corpus and image–text pairs to an encoder, in one folder that can be gone on with."""

from crossfade.training.xbt.result import StageResult, TextSide, XBTTraining
from crossfade.training.xbt.run import Stages, train_xbt

__all__ = ["StageResult", "Stages", "TextSide", "XBTTraining", "train_xbt"]
