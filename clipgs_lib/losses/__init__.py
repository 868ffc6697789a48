"""Contrastive losses of CLIP-GS and its peers: pure functions of unit-norm embeddings."""

from .pairs import LogitScale, pair_loss, same_rows
from .voting import Voting, image_voting_loss, multi_positive_loss, voting_weights
