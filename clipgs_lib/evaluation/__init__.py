"""How good embeddings are: protocols over sets and encoders (`evaluate`), and the scores that they are made of.

Ties are not decided by position: a target that ties with others counts with the probability that a random order of the
tied puts it among the first k. An encoder that gives the same embedding to everything therefore scores chance, exactly.
Scores closer than `TIE` are ties, because float32 products cannot tell them apart.

All intervals are 95 % percentile bootstraps with a seed. They resample whole objects (or episodes), so that many
queries of one object do not pass for many independent ones. Where all objects agree (all hits, no hits, a single
object) such an interval has no width, which says nothing about certainty: look at the count.
"""

from __future__ import annotations

from .benchmarks import EvaluationWarning, class_list, open_folder
from .evaluation_set import BAG, EvaluationSet, content_of, embed_set, load_set, load_teacher_of
from .protocols import few_shot, linear_probe
from .results import Measured, Results, compare
from .run import PROTOCOLS, EvaluationConfig, evaluate
from .scores import RESAMPLES, TIE, Interval, Ranked, hit_rates, relevant_mask, retrieval, zero_shot
