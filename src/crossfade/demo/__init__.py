"""Two small encoders of the built-in glyphs, in the transformers CLIP format: an older and a newer model.

=========  ==========  ==========================  =========================================
constant   dimension   trained on                  use
=========  ==========  ==========================  =========================================
``OLD``    64          a fifth of the images       the model that filled the gallery
``NEW``    128         all training images         the model that should answer the queries
=========  ==========  ==========================  =========================================

Both are folders, for ``crossfade.encode(..., encoder=str(OLD))`` or ``transformers.AutoModel.from_pretrained(OLD)``.
``scripts/train_demo_encoders.py`` reproduces them; what they reach is in the ``README.md`` of each folder.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["NEW", "OLD"]

OLD = Path(__file__).parent / "glyphs-old"
NEW = Path(__file__).parent / "glyphs-new"
