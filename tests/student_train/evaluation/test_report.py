"""What the table says of the gain of teaching."""

import pytest

from student_train.evaluation.report import gain_cell


@pytest.mark.parametrize(
    ("teacher", "told"),
    [(90.0, "+20.0 SumR, 50% of the gap"), (60.0, "+20.0 SumR, past the teacher"), (40.0, "+20.0 SumR")],
)
def test_the_share_of_the_gap_is_told_where_there_is_one(teacher, told):
    gain = {"mean": 20.0, "std": 0.0, "per_seed": [20.0]}
    tables = {
        "teacher": {"t2v": {"SumR": {"mean": teacher}}},
        "untaught": {"t2v": {"SumR": {"mean": 50.0}}},
        "gain": {"t2v": {"SumR": gain}},
    }
    assert gain_cell(tables, "t2v") == told
