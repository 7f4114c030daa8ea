"""The list of teachers: counted, not told."""

import pytest

from store.errors import UnknownNameError
from teacher_dump.__main__ import build_parser
from teacher_dump.catalogue import entry_of
from teacher_dump.teachers import demo


def run(*words):
    arguments = build_parser().parse_args(["teachers", *words])
    return arguments.execute(arguments)


def test_a_teacher_at_its_published_size_costs_what_its_papers_say():
    entry = entry_of("clip")
    assert entry.parameters == pytest.approx(151.3e6, rel=1e-3)
    assert entry.frame_gflops == pytest.approx(
        2 * 4.41, rel=0.02
    )  # 4.4 billion multiplications with additions


@pytest.mark.slow
def test_a_pair_of_a_cross_encoder_costs_far_more_than_one_of_a_dual_encoder():
    albef, clip = entry_of("albef"), entry_of("clip")
    assert albef.frame_gflops == pytest.approx(2 * 55.5, rel=0.02)
    assert albef.block_gflops > 1
    assert albef.pair_gflops > 1e6 * clip.pair_gflops


def test_parameters_are_those_of_the_model_and_signals_those_that_it_emits():
    entry, teacher = entry_of("demo"), demo.tiny(0)
    assert entry.parameters == sum(parameter.numel() for parameter in teacher.model.parameters())
    assert entry.signals == tuple(spec.name for spec in teacher.signals)
    assert entry.view == teacher.view.name


def test_the_command_tells_cost_signals_view_weights_and_licence(capsys):
    assert run("demo") == 0
    told = capsys.readouterr().out
    for word in (
        "demo",
        "million parameters",
        "a frame",
        "a pair",
        "view uniform_8x32",
        "word_valid",
        "Apache-2.0",
    ):
        assert word in told


def test_an_unknown_teacher_is_told_with_what_there_is():
    with pytest.raises(UnknownNameError, match="clip4clip"):
        run("clip4clap")
