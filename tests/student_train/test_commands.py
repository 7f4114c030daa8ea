"""`python -m student_train` as a person meets it: what is written, repeated, reused and refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from store.errors import CacheError
from store.reader import Cache, open_cache
from store.retrieval_metrics import DIRECTIONS, METRICS
from student_train import experiment, trainer
from student_train.__main__ import main
from student_train.configuration import Told, read_settings
from tests.student_train.event_files import curves
from tests.student_train.learnable_cache import SIGNALS, learnable_samples, write_learnable_cache

RATES = ("--learning-rates", "0.001,0.003")
QUICK = ("--epochs", "3", "--batch-size", "16", "--seeds", "0,1", *RATES, "--recipe", "demo")
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line; returns exit status, stdout and stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture(scope="module")
def finished(learnable_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two seeds, two rates and both arms; tests must not change it."""
    run = tmp_path_factory.mktemp("runs") / "quick"
    assert main(["train", str(learnable_path), "--out", str(run), *QUICK]) == 0
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def refused(result: tuple[int, str, str], *words: str) -> None:
    status, _, err = result
    assert status == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def test_a_run_holds_results_for_programs_and_for_people(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    for who, count in (("teacher", 1), ("untaught", 2), ("taught", 2)):
        for direction in DIRECTIONS:
            assert list(results[who][direction]) == list(METRICS)
            for found in results[who][direction].values():
                assert len(found["per_seed"]) == count
                assert found["mean"] == pytest.approx(sum(found["per_seed"]) / count)
    taught, untaught = (results[arm]["text_to_video"]["SumR"]["per_seed"] for arm in ("taught", "untaught"))
    assert results["gain"]["text_to_video"]["SumR"]["per_seed"] == [
        a - b for a, b in zip(taught, untaught, strict=True)
    ]
    assert set(results["frame_weights"]) == {"captions", "uniform", "teacher", "untaught", "taught"}
    assert results["frame_weights"]["uniform"]["auc"]["mean"] == 0.5
    assert set(results["bytes"]) == {spec.name for spec in SIGNALS}
    assert {"train untaught", "train taught", "evaluate"} <= set(results["seconds"])
    assert "| text to video | taught" in (finished / "results.md").read_text()
    assert (finished / "results.png").read_bytes().startswith(b"\x89PNG")


def test_the_learning_rate_is_chosen_on_val_for_the_untaught_arm(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    tried = results["learning_rates_tried"]
    assert set(tried) == {"0.001", "0.003"}
    assert results["learning_rate"] == float(max(tried, key=lambda rate: tried[rate]["mean"]))
    assert results["learning_rate_chosen_for"] == "untaught"
    trained = sorted(path.name for path in (finished / "trainings").iterdir())
    rate = results["learning_rate"]
    assert [name for name in trained if name.startswith("taught")] == [
        f"taught-lr{rate}-seed{s}" for s in (0, 1)
    ]
    assert len(trained) == 2 + 4


def test_both_arms_start_from_the_same_student_and_see_the_same_rows(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    logs = [
        (finished / "trainings" / f"{arm}-lr{results['learning_rate']}-seed0" / "log.jsonl")
        .read_text()
        .splitlines()
        for arm in ("untaught", "taught")
    ]
    untaught, taught = (json.loads(log[0]) for log in logs)
    assert len(logs[0]) == len(logs[1])
    assert untaught["info_nce"] == pytest.approx(taught["info_nce"], rel=1e-6)


def test_evaluate_repeats_the_printed_numbers_from_the_saved_students(
    run: Path, learnable_path: Path, command: Command
) -> None:
    status, out, _ = command("evaluate", run, "--cache", learnable_path)
    assert status == 0
    printed = (run / "results.md").read_text()
    assert printed in out


def test_evaluate_says_which_number_it_can_not_repeat(
    run: Path, learnable_path: Path, command: Command
) -> None:
    results = json.loads((run / "results.json").read_text())
    results["taught"]["text_to_video"]["R@1"]["per_seed"][1] += 5
    (run / "results.json").write_text(json.dumps(results))
    status, out, _ = command("evaluate", run, "--cache", learnable_path)
    assert status == 1
    assert "differs: taught.text_to_video.R@1.per_seed" in out


def test_evaluate_finds_a_student_that_was_exchanged(
    run: Path, learnable_path: Path, command: Command
) -> None:
    folders = sorted((run / "trainings").glob("taught-*"))
    shutil.copy(folders[0] / "student.safetensors", folders[1] / "student.safetensors")
    refused(command("evaluate", run, "--cache", learnable_path), "student.safetensors", "train again")


def test_a_second_call_trains_nothing_and_prints_the_same_table(
    run: Path, learnable_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "train", no_training)
    before = (run / "results.json").read_bytes()
    status, out, _ = command("train", learnable_path, "--out", run, *QUICK)
    assert status == 0
    assert out.startswith((run / "results.md").read_text())
    assert (run / "results.json").read_bytes() == before


def no_training(*arguments: object) -> None:
    raise AssertionError("a finished training was done again")


def test_another_seed_trains_only_what_is_missing(run: Path, learnable_path: Path, command: Command) -> None:
    times = {path: path.stat().st_mtime_ns for path in run.rglob("training.json")}
    quick = [*QUICK[:5], "0,1,2", *QUICK[6:]]
    status, out, _ = command("train", learnable_path, "--out", run, *quick)
    assert status == 0
    assert out.count("seed 2:") == 3
    assert "seed 0:" not in out
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert (
        len(json.loads((run / "results.json").read_text())["taught"]["text_to_video"]["SumR"]["per_seed"])
        == 3
    )


def test_an_interrupted_training_is_done_anew_and_comes_out_the_same(
    run: Path, learnable_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = json.loads((run / "results.json").read_text())
    (folder,) = (run / "trainings").glob("taught-*-seed1")
    shutil.rmtree(folder)
    with monkeypatch.context() as context:
        context.setattr(trainer, "end_epoch", interrupt)
        status, _, err = command("train", learnable_path, "--out", run, *QUICK)
        assert status == 130
        assert "interrupted" in err
        assert not (folder / "training.json").exists()
    assert command("train", learnable_path, "--out", run, *QUICK)[0] == 0
    assert json.loads((run / "results.json").read_text())["taught"] == before["taught"]


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_report_writes_table_and_picture_anew(run: Path, command: Command) -> None:
    (run / "results.md").unlink()
    (run / "results.png").unlink()
    status, out, _ = command("report", run)
    assert status == 0
    assert out.startswith((run / "results.md").read_text())
    assert (run / "results.png").exists()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--epochs", "5", ("settings.epochs", "stored 3", "wanted 5", "--out")),
        ("--recipe", "teachclip", ("recipe", "'demo'", "'teachclip'")),
        ("--recipe", "demmo", ("did you mean 'demo'", "in all")),
        ("--student", "aaf", ("did you mean 'afa'",)),
        ("--teacher", "orakel", ("did you mean 'oracle'",)),
        ("--arms", "taugt", ("did you mean 'taught'",)),
        ("--batch-size", "1000", ("48", "--batch-size")),
        ("--threads", "2", ("torch_threads", "stored 1", "wanted 2")),
        ("--learning-rates", "0", ("optimizer", "between 0 and 10")),
        ("--set", "optimizer.weight_decay=0.3", ("settings.optimizer.weight_decay", "wanted 0.3")),
        ("--set", "model.frame_scale=2", ("settings.model.frame_scale", "wanted 2.0")),
        ("--set", "losses.info_nze=1", ("did you mean 'info_nce'",)),
        ("--set", "optimizer.wieght_decay=1", ("did you mean 'optimizer.weight_decay'",)),
        ("--seeds", "0,0", ("different whole numbers like 1,2,3",)),
        ("--seeds", "0.5", ("seeds", "a whole number", "0.5")),
        ("--seeds", "-1", ("different whole numbers",)),
        ("--track", "wandbb", ("did you mean 'wandb'",)),
        ("--role", "second=orakel", ("did you mean 'oracle'",)),
        ("--role", "secnd=oracle", ("role", "did you mean 'second'")),
        ("--set", "losses.coarse_pearson@second=1", ("nobody fills", "--role second=TEACHER")),
    ],
)
def test_what_does_not_fit_the_run_is_refused_in_one_line(
    finished: Path, learnable_path: Path, command: Command, option: str, value: str, words: tuple[str, ...]
) -> None:
    refused(command("train", learnable_path, "--out", finished, *QUICK, option, value), *words)


def test_a_run_of_another_cache_is_refused_with_both_digests(
    run: Path, tmp_path: Path, command: Command
) -> None:
    other = write_learnable_cache(
        tmp_path / "other.zarr", learnable_samples({"train": 48, "val": 20, "test": 41})
    )
    pinned = json.loads((run / "config.json").read_text())["identity"]["cache"]
    assert set(pinned) == {"tables", "teachers/oracle", "views/oracle_view"}
    refused(command("train", other, "--out", run, *QUICK), "cache.", pinned["tables"])
    refused(command("evaluate", run, "--cache", other), "cache.", "--cache")


def test_a_run_goes_on_where_another_teacher_was_added_to_its_cache(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = write_learnable_cache(tmp_path / "c.zarr")
    quick = [*QUICK, "--seeds", "0", "--learning-rates", "0.001", "--teacher", "oracle"]
    assert command("train", cache, "--out", tmp_path / "run", *quick)[0] == 0
    before = open_cache(cache).digest
    write_learnable_cache(cache, teachers=("second",))
    assert open_cache(cache).teacher_names == ["oracle", "second"]
    assert open_cache(cache).digest != before
    monkeypatch.setattr(experiment, "train", no_training)
    assert command("train", cache, "--out", tmp_path / "run", *quick)[0] == 0
    assert command("evaluate", tmp_path / "run")[0] == 0


def test_a_run_tells_its_settings_versions_digests_and_seeds(finished: Path, learnable: Cache) -> None:
    config = json.loads((finished / "config.json").read_text())
    assert {"python", "torch", "accelerate", "numpy", "zarr", "machine"} <= set(config["provenance"])
    assert config["provenance"]["cache_digest"] == learnable.digest
    settings = read_settings(finished / "configuration.yaml")
    assert settings["seeds"] == [0, 1]
    assert settings["teacher"] == "oracle"
    assert settings["optimizer"]["lr"] == [0.001, 0.003]
    assert {**settings["optimizer"], "lr": None} == {
        **config["identity"]["settings"]["optimizer"],
        "lr": None,
    }


def test_a_folder_with_other_files_is_not_taken_for_a_run(
    tmp_path: Path, learnable_path: Path, command: Command
) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    refused(command("train", learnable_path, "--out", tmp_path, *QUICK), "holds other files")


def test_a_cache_that_is_not_there_is_refused_in_one_line(tmp_path: Path, command: Command) -> None:
    refused(command("train", tmp_path / "no.zarr", "--out", tmp_path / "run"), "no.zarr", "make dump-teacher")
    refused(command("evaluate", tmp_path / "no_run"), "no config.json", "student_train train")
    refused(command("report", tmp_path / "no_run"), "no results.json")


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    with pytest.raises(CacheError):
        main(["report", str(tmp_path / "no_run"), "--debug"])


def test_without_a_val_split_one_rate_is_needed_and_the_last_epoch_kept(
    tmp_path: Path, command: Command
) -> None:
    cache = write_learnable_cache(tmp_path / "c.zarr", learnable_samples({"train": 32, "test": 8}))
    refused(command("train", cache, "--out", tmp_path / "run", *QUICK), "no split 'val'", "--learning-rates")
    assert not (tmp_path / "run").exists()
    quick = [*QUICK[:5], "0", "--learning-rates", "0.003"]
    status, out, _ = command("train", cache, "--out", tmp_path / "run", *quick)
    assert status == 0
    assert "kept epoch 3 of 3" in out
    assert "no val split" in out


def test_a_signal_that_teaching_needs_is_refused_before_anything_is_trained(
    tmp_path: Path, command: Command
) -> None:
    cache = write_learnable_cache(tmp_path / "c.zarr", signals=SIGNALS[:2])
    refused(
        command("train", cache, "--out", tmp_path / "run", *QUICK), "frame_relevance", "teacher_dump dump"
    )
    assert not (tmp_path / "run").exists()
    status, out, _ = command(
        "train", cache, "--out", tmp_path / "run", *QUICK, "--arms", "untaught", "--seeds", "0"
    )
    assert status == 0
    assert "\ntaught" not in out
    assert "| taught" not in out


def test_unknown_moments_leave_the_frame_weights_unjudged_but_all_else_told(
    tmp_path: Path, command: Command
) -> None:
    samples = learnable_samples({"train": 32, "val": 8, "test": 8}, known_moments=False)
    cache = write_learnable_cache(tmp_path / "c.zarr", samples)
    status, out, _ = command("train", cache, "--out", tmp_path / "run", *QUICK, "--learning-rates", "0.001")
    assert status == 0
    assert "Frame weights: no test video has a known moment" in out
    assert (tmp_path / "run" / "results.png").exists()


def test_of_several_teachers_one_has_to_be_named(tmp_path: Path, command: Command) -> None:
    cache = write_learnable_cache(tmp_path / "c.zarr", teachers=("oracle", "second"))
    refused(command("train", cache, "--out", tmp_path / "run", *QUICK), "oracle, second", "--teacher")


def test_seconds_of_the_dump_are_told_if_it_reported_them(tmp_path: Path, command: Command) -> None:
    cache = write_learnable_cache(tmp_path / "c.zarr")
    (cache / "reports").mkdir()
    (cache / "reports" / "dump.json").write_text(
        json.dumps({"teachers": {"oracle": {"seconds": {"render": 1.5, "videos": 2}}}})
    )
    quick = [*QUICK, "--seeds", "0", "--learning-rates", "0.001", "--arms", "taught"]
    status, out, _ = command("train", cache, "--out", tmp_path / "run", *quick)
    assert status == 0
    assert "Seconds: render 1.5, videos 2.0, train taught" in out


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["evaluate", "--help"], ["report", "--help"]]
)
def test_every_command_explains_itself(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0
    assert "usage: python -m student_train" in capsys.readouterr().out


@pytest.mark.parametrize("said", ["epochs", "=3", "epochs="])
def test_a_setting_without_a_value_is_refused(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["train", "c.zarr", "--set", said])
    assert left.value.code == 2
    assert "KEY=VALUE" in capsys.readouterr().err


def test_the_demos_teacher_has_a_recipe_of_its_own_any_other_the_official_one(tmp_path: Path) -> None:
    for teacher, recipe in (("demo", "demo"), ("oracle", "teachclip")):
        cache = open_cache(write_learnable_cache(tmp_path / f"{teacher}.zarr", teachers=(teacher,)))
        assert Told().resolve(cache).run.recipe == recipe


def test_the_printed_configuration_fed_back_trains_the_same(
    run: Path, learnable_path: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, printed, _ = command("train", learnable_path, *QUICK, "--print-config")
    assert status == 0
    assert printed == (run / "configuration.yaml").read_text()
    file = tmp_path / "settings.yaml"
    file.write_text(printed)
    assert command("train", learnable_path, "--config", file, "--print-config")[1] == printed
    monkeypatch.setattr(experiment, "train", no_training)
    assert command("train", learnable_path, "--out", run, "--config", file)[0] == 0


def test_every_training_leaves_its_curves_for_tensorboard(finished: Path) -> None:
    for training in (finished / "trainings").iterdir():
        log = [json.loads(line) for line in (training / "log.jsonl").read_text().splitlines()]
        found = curves(training)
        loss = [(line["step"], pytest.approx(line["loss"])) for line in log]
        assert found["loss/total"] == loss
        assert len(found["loss/info_nce"]) == len(found["optimizer/gradient_norm"]) == len(log)
        assert len(found["val/score"]) == 3, "one for each epoch"


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_trained(
    learnable_path: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    arguments = ("train", learnable_path, "--out", tmp_path / "run", *QUICK, "--track", "wandb")
    refused(command(*arguments), "pip install wandb")
    assert not (tmp_path / "run").exists()


def test_without_a_folder_nothing_is_trained(learnable_path: Path, command: Command) -> None:
    refused(command("train", learnable_path), "--out RUN")
