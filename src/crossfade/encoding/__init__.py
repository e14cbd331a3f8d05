"""encode(): items → vectors on disk; batched, resumable after a kill, past corrupt items. Imports no model library."""

from crossfade.encoding.collections import encode_dataset
from crossfade.encoding.folder import EncodeSummary
from crossfade.encoding.progress import Progress
from crossfade.encoding.run import encode

__all__ = ["EncodeSummary", "Progress", "encode", "encode_dataset"]
