"""Teachers in roles: what they say of frames counts only where the frames are the student's own."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from store.errors import InputError
from store.inputs.view import View
from student_train.needs import PAIR_SCORES, RELEVANCE
from student_train.teachers import Teachers, require_same_frames

OURS = View("ours", 12, 224, "one_per_second")


def teachers(theirs: View) -> Teachers:
    main: Any = SimpleNamespace(view=OURS)
    second: Any = SimpleNamespace(view=theirs)
    return Teachers(main, {"second": second})


@pytest.mark.parametrize("changed", [{"sampling": "uniform"}, {"frames": 8}, {"resize": "squash"}])
def test_what_a_teacher_says_of_frames_that_the_student_does_not_see_is_refused(changed: dict) -> None:
    others = teachers(replace(OURS, name="theirs", **changed))
    for need in (RELEVANCE, "temporal_frame_embedding", "vit_layers/3", "pixels"):
        with pytest.raises(InputError, match=f"{need}@second tells of frames of the view 'theirs'.*'ours'"):
            require_same_frames(others, ["frame_embedding", f"{need}@second"])
    require_same_frames(others, [RELEVANCE, f"{PAIR_SCORES}@second", "text_embedding@second", "logit_scale"])
    require_same_frames(others, ["class:text_embedding@classifier", "planned_topk/text_score@second"])


def test_the_same_frames_under_another_name_count_and_larger_ones_but_for_places() -> None:
    require_same_frames(teachers(replace(OURS, name="theirs")), ["vit_layers/3@second"])
    larger = teachers(replace(OURS, name="theirs", size=336))
    require_same_frames(larger, [f"{RELEVANCE}@second"])
    with pytest.raises(InputError, match="vit_layers/3@second"):
        require_same_frames(larger, ["vit_layers/3@second"])
