"""The GS Tokenizer of CLIP-GS: splats to patches to tokens, with the indices needed to draw them.

``collate`` makes a `SplatBatch` of splats of any sizes, ``patchify`` cuts it into patches (farthest points, nearest
neighbours), ``GSTokenizer`` makes one token of each patch. Paper: CLIP-GS (ICCV 2025), "GS Tokenizer".
"""

from .batch import SplatBatch, TokenizerWarning, collate
from .config import CHANNELS, TokenizerConfig
from .tokens import AttributeEncoder, GSTokenizer, Patches, PointPatchEncoder, Tokens, attribute_channels, patchify
