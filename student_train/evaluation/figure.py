"""results.json as a picture: retrieval by arm, frame weights against visible frames, one example."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from student_train.config import KEEP_BEST_ON_TEST, TAUGHT, UNTAUGHT
from student_train.evaluation.report import headline

COLOURS = {"uniform": "#b0b0b0", UNTAUGHT: "#d98c3f", TAUGHT: "#2f7fb8", "teacher": "#444444"}
MEASURES = {"mass": "share of weight", "hit@1": "top frame is visible"}


def draw(results: Mapping[str, Any]) -> bytes:
    """The picture as PNG: a panel for each thing that there is to show."""
    panels: list[tuple[float, Callable[[Axes], None]]] = [(1.0, lambda axes: draw_retrieval(axes, results))]
    if "absent" not in results["frame_weights"]:
        panels.append((1.3, lambda axes: draw_frame_weights(axes, results["frame_weights"])))
    if "absent" not in results["example"]:
        panels.append((1.6, lambda axes: draw_example(axes, results["example"])))
    widths = [width for width, _ in panels]
    figure, row = plt.subplots(
        1, len(panels), figsize=(3.6 * sum(widths), 4), width_ratios=widths, squeeze=False
    )
    for axes, (_, draw_panel) in zip(row[0], panels, strict=True):
        draw_panel(axes)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)
    return content.getvalue()


def draw_retrieval(axes: Axes, results: Mapping[str, Any]) -> None:
    """SumR (or top-1) by arm: a bar for the mean, a dot a seed, seeds joined; the teacher as a line."""
    arms = [arm for arm in (UNTAUGHT, TAUGHT) if headline(results, arm)]
    points = []
    for place, arm in enumerate(arms):
        found = headline(results, arm) or {}
        axes.bar(place, found["mean"], width=0.6, color=COLOURS[arm], alpha=0.55)
        axes.plot([place] * len(found["per_seed"]), found["per_seed"], "o", color=COLOURS[arm], markersize=4)
        points.append(found["per_seed"])
    for pair in zip(*points, strict=True):
        axes.plot(range(len(pair)), pair, color="#888888", linewidth=0.7)
    teacher = headline(results, "teacher")
    if teacher:
        axes.axhline(teacher["mean"], color=COLOURS["teacher"], linestyle="--", linewidth=1)
        beside_axis = axes.get_yaxis_transform()
        axes.text(0.01, teacher["mean"], "teacher", transform=beside_axis, va="bottom", fontsize=8)
    axes.set_xticks(range(len(arms)), arms)
    highest = max([value for of_arm in points for value in of_arm] + [teacher["mean"] if teacher else 0])
    axes.set_ylim(0, max(1.12 * highest, 1))
    classes = "classes" in results["test"]
    axes.set_ylabel("top-1 accuracy, percent" if classes else "SumR (R@1 + R@5 + R@10)")
    peak = ", peak on it" if results["kept_epoch"] == KEEP_BEST_ON_TEST else ""
    axes.set_title(f"{'Recognition' if classes else 'Text to video'}, test split{peak}", fontsize=10)


def draw_frame_weights(axes: Axes, found: Mapping[str, Any]) -> None:
    """Share of weight on visible frames, and how often the top frame is one, by who weighs."""
    axes.set_title("Do the weights follow the visible frames?", fontsize=10)
    who = [name for name in COLOURS if name in found]
    for offset, (measure, hatch) in enumerate(zip(MEASURES, ("", "//"), strict=True)):
        for place, name in enumerate(who):
            value = found[name][measure]
            axes.bar(
                place + 0.38 * offset,
                value["mean"],
                yerr=value["std"] or None,
                width=0.36,
                color=COLOURS[name],
                alpha=0.55,
                hatch=hatch,
                label=MEASURES[measure] if place == 0 else None,
            )
    axes.set_xticks([place + 0.19 for place in range(len(who))], who)
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def draw_example(axes: Axes, found: Mapping[str, Any]) -> None:
    """Weight of every frame of one test video; frames that show the described thing are shaded."""
    time, visible = found["frame_time_s"], found["frame_visible"]
    half = (time[-1] - time[0]) / (2 * (len(time) - 1))
    for place, moment in enumerate(moment for moment, seen in zip(time, visible, strict=True) if seen):
        label = "visible" if place == 0 else None
        axes.axvspan(moment - half, moment + half, color="#f3e9b5", linewidth=0, label=label)
    for who, weight in found["frame_weight"].items():
        style = "o--" if who == "teacher" else "o-"
        axes.plot(time, weight, style, markersize=4, color=COLOURS[who], label=who)
    axes.set_ylim(0, 1.1 * max(map(max, found["frame_weight"].values())))
    axes.set_xlabel("seconds")
    axes.set_ylabel("frame weight")
    axes.set_title(textwrap.fill(f"“{found['text']}”", 60), fontsize=10, parse_math=False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
