"""Texts of objects: raw names filtered, enriched with what can be measured, drawn for training."""

from .attributes import Attributes, measure
from .caption import Caption, draw_caption, score_captions
from .enrich import ObjectCaptions, caption_object
from .filtering import FilterReport, captions_table, filter_captions
