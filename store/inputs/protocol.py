"""How retrieval on a dataset is evaluated: what counts as right, and among which candidates.

single-caption   one caption a video: both directions rank against all others (MSR-VTT 1k-A, LSMDC)
multi-caption    every caption is a query; the other way a video's captions make one candidate, the best of
                 them (MSVD, VATEX, MSR-VTT's official split: CLIP4Clip's multi-sentence evaluation)
paragraph        all sentences of a video joined into one text, then as single-caption (ActivityNet, DiDeMo)
every-caption    every caption is a query and a candidate of its own; any caption of an image is right
                 (COCO, Flickr30k: the retrieval evaluation of ALBEF and BLIP)
equal-captions   as every-caption, and a text is right for every video that has an equal text
                 (Conceptual Captions, SBU, a table of one's own with repeated captions)
recognition      class names are the texts; a video's class is right (Kinetics, ImageNet, ...): top-1, top-5
"""

from __future__ import annotations

SINGLE_CAPTION = "single-caption"
MULTI_CAPTION = "multi-caption"
PARAGRAPH = "paragraph"
EVERY_CAPTION = "every-caption"
EQUAL_CAPTIONS = "equal-captions"
RECOGNITION = "recognition"
RETRIEVAL_PROTOCOLS = (SINGLE_CAPTION, MULTI_CAPTION, PARAGRAPH, EVERY_CAPTION, EQUAL_CAPTIONS)
PROTOCOLS = (*RETRIEVAL_PROTOCOLS, RECOGNITION)
