"""Encoders behind one interface, by name or from disk: CLIP-GS, DuoduoCLIP, and the baselines beside them.

Those are the point models of Uni3D and OpenShape (of centres, or of points on the surface), all attributes fed naively,
voxels, and the bag of views.
"""

from .adoption import Adoption
from .bag import BagOfViews, pool_views
from .configs import EncoderConfig, EncoderError, MultiViewConfig, PointBertConfig, config_from_dict
from .duoduo import MultiViewEncoder, ViewTokens
from .encoder import Encoder, TokenEncoder
from .factory import build_encoder, encoder_config, encoder_names
from .published import import_duoduo, import_openshape, import_uni3d, init_from_point
from .stored import load_encoder, save_encoder
