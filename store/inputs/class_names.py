"""Class names and the templates that make texts of them."""

from __future__ import annotations

import re

PERSON_PROMPT = "a video of a person {}."
"""Text4Vis' single template, appendix B.4, for every video dataset (modules/text_prompt.py)."""

SUBJECTS = ("photo", "video", "example", "demonstration")
VERBS = ("", "using ", "doing ", "during ", "performing ", "practicing ")
KINETICS_PROMPTS = (
    PERSON_PROMPT,
    *(
        prompt
        for subject in SUBJECTS
        for prompt in (f"a {subject} of {{}}.", *(f"a {subject} of a person {verb}{{}}." for verb in VERBS))
        if prompt != PERSON_PROMPT
    ),
)
"""The 28 templates that CLIP's authors give for Kinetics; the one to evaluate with comes first."""

IMAGE_PROMPT = "a photo of a {}."


def spaced(name: str) -> str:
    """ "HandstandPushups" -> "Handstand Pushups", "brush_hair" -> "brush hair": a class's folder as words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("_", " ")).strip()
