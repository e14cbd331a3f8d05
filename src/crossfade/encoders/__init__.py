"""Encoders: images and texts in, vectors of one space out. Importing this package imports no model library.

=============================  ===================================================================================
name given to `load_encoder`   encoder
=============================  ===================================================================================
``folder`` or ``owner/model``  what its files say: dual encoder, sentence-transformers or vision backbone (transformers),
                               or a dual encoder that :func:`crossfade.training.tuning.tune` tuned
``demo:old``, ``demo:new``     the two small dual encoders that come with Crossfade, for its printed characters
``dual:…``                     a dual encoder in the transformers format
``sentence-transformers:…``    a text encoder
``vision:…``                   an image-only backbone in the transformers format
``timm:…``                     an image-only backbone of timm
``open_clip:…``                an open_clip checkpoint
``openai:…``                   a model behind an OpenAI-compatible endpoint
=============================  ===================================================================================
"""

from crossfade.encoders.adapted import AdaptedEncoder
from crossfade.encoders.base import Encoder, Role
from crossfade.encoders.loading import load_encoder
from crossfade.encoders.open_clip import OpenClipEncoder
from crossfade.encoders.openai import OpenAIEncoder, Retries
from crossfade.encoders.sentence_transformers import SentenceTransformersEncoder
from crossfade.encoders.timm import TimmEncoder
from crossfade.encoders.transformers_dual import TransformersDualEncoder
from crossfade.encoders.tuned import TunedEncoder
from crossfade.encoders.vision import VisionEncoder

__all__ = [
    "AdaptedEncoder",
    "Encoder",
    "OpenAIEncoder",
    "OpenClipEncoder",
    "Retries",
    "Role",
    "SentenceTransformersEncoder",
    "TimmEncoder",
    "TransformersDualEncoder",
    "TunedEncoder",
    "VisionEncoder",
    "load_encoder",
]
