"""What the table says of the gain of teaching."""

import pytest

from student_train.evaluation.report import gain_cell


@pytest.mark.parametrize(
    ("teacher", "told"),
    [(90.0, "+20.0 SumR, 50% of the gap"), (60.0, "+20.0 SumR, past the teacher"), (40.0, "+20.0 SumR")],
    ids=["half", "past", "worse teacher"],
)
def test_the_share_of_the_gap_is_told_where_there_is_one(teacher, told):
    gain = {"mean": 20.0, "std": 0.0, "per_seed": [20.0]}
    tables = {
        "teacher": {"t2v": {"SumR": {"mean": teacher}}},
        "untaught": {"t2v": {"SumR": {"mean": 50.0}}},
        "gain": {"t2v": {"SumR": gain}},
    }
    assert gain_cell(tables, "t2v") == told


def test_no_share_is_told_of_who_moves_away_from_the_teacher():
    tables = {
        "teacher": {"t2v": {"SumR": {"mean": 90.0}}},
        "untaught": {"t2v": {"SumR": {"mean": 50.0}}},
        "gain": {"t2v": {"SumR": {"mean": -4.0, "std": 0.0, "per_seed": [-4.0]}}},
    }
    assert gain_cell(tables, "t2v") == "-4.0 SumR, away from the teacher"
