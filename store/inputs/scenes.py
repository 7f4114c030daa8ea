"""The demo's little world: scenes of one described object, and how people would put them in words.

A scene is a shape of a colour and a size that moves before a ground. A clip shows its own scene for a
moment, in focus, and other scenes, out of focus, for the rest of the time: whoever wants to match clip
and caption has to find the frames that count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SHAPES: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "ring": ("ring", "hoop"),
    "cross": ("cross", "plus sign"),
    "diamond": ("diamond", "rhombus"),
    "crescent": ("crescent", "half moon"),
}
COLOURS: dict[str, tuple[str, ...]] = {
    "red": ("red", "crimson"),
    "orange": ("orange",),
    "yellow": ("yellow", "golden"),
    "green": ("green",),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rosy"),
    "white": ("white",),
}
SIZES: dict[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium", "mid sized"),
    "large": ("large", "big", "huge"),
}
MOTIONS: dict[str, tuple[str, ...]] = {
    "left": ("moves left", "slides to the left"),
    "right": ("moves right", "slides to the right"),
    "up": ("rises", "floats upwards"),
    "down": ("falls", "sinks downwards"),
    "spin": ("spins", "turns around itself"),
    "still": ("stays still", "does not move"),
}
GROUNDS: dict[str, tuple[str, ...]] = {
    "grass": ("on the grass", "on a lawn"),
    "sand": ("on the sand", "on a beach"),
    "snow": ("in the snow",),
    "night": ("in the night sky", "under the stars"),
    "water": ("on the water", "over the waves"),
    "bricks": ("before a brick wall",),
    "tiles": ("on a tiled floor", "on a chequered floor"),
    "wood": ("on wooden planks", "on a table"),
}
TEMPLATES = (
    "a {size} {colour} {shape} {motion} {ground}",
    "{ground} a {size} {colour} {shape} {motion}",
    "a {colour} {shape} {motion} {ground} and it is {size}",
    "we see a {colour} {size} {shape} that {motion} {ground}",
    "for a moment a {size} {shape} in {colour} {motion} {ground}",
)
WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "size": SIZES,
    "motion": MOTIONS,
    "ground": GROUNDS,
}
SCENE_COUNT = math.prod(len(words) for words in WORDS.values())

FRAMES_PER_SECOND = 4
CLIP_FRAMES = 16
MOMENT_FRAMES = (4, 7)
DISTRACTOR_FRAMES = (2, 6)
SHORTEST_SHOT = 2

# Which scenes belong to which split: a fixed shuffle of all of them, cut once and for all, so that no
# clip of val or test shows a scene that a student or the teacher was trained on.
SHUFFLE_SEED = 0
SPLIT_START = {"test": 0, "val": 500, "train": 700}


@dataclass(frozen=True)
class Scene:
    """One combination of attributes; each is a key of its table above."""

    shape: str
    colour: str
    size: str
    motion: str
    ground: str

    @classmethod
    def number(cls, number: int) -> Scene:
        """Scene `number` of SCENE_COUNT."""
        places = np.unravel_index(number, [len(words) for words in WORDS.values()])
        return cls(*(list(words)[place] for words, place in zip(WORDS.values(), places, strict=True)))


@dataclass(frozen=True)
class Shot:
    """Frames [start, stop) of a clip show `scene`; the described one is in focus."""

    start: int
    stop: int
    scene: Scene
    described: bool


def split_scenes(split: str, count: int) -> np.ndarray:
    """Numbers [count] of the first scenes of a split; raises ValueError if it has fewer."""
    start = SPLIT_START[split]
    stop = min((other for other in SPLIT_START.values() if other > start), default=SCENE_COUNT)
    if count > stop - start:
        raise ValueError(f"split {split!r} has {stop - start} scenes, {count} were asked for")
    order = np.random.Generator(np.random.PCG64(SHUFFLE_SEED)).permutation(SCENE_COUNT)
    return order[start : start + count]


def caption(scene: Scene, generator: np.random.Generator) -> str:
    """One of the ways to say what a scene shows."""
    words = {name: str(generator.choice(WORDS[name][value])) for name, value in vars(scene).items()}
    return str(generator.choice(TEMPLATES)).format(**words)


def shots(scene: Scene, generator: np.random.Generator) -> list[Shot]:
    """The shots of a clip of `scene`: a moment of it somewhere, other scenes before and after."""
    length = int(generator.integers(*MOMENT_FRAMES))
    start = int(generator.integers(0, CLIP_FRAMES - length + 1))
    return [
        *distractors(0, start, generator),
        Shot(start, start + length, scene, described=True),
        *distractors(start + length, CLIP_FRAMES, generator),
    ]


def distractors(start: int, stop: int, generator: np.random.Generator) -> Iterator[Shot]:
    """Shots of any scenes that fill [start, stop)."""
    while start < stop:
        end = start + int(generator.integers(*DISTRACTOR_FRAMES))
        end = stop if stop - end < SHORTEST_SHOT else end
        yield Shot(start, end, Scene.number(int(generator.integers(SCENE_COUNT))), described=False)
        start = end
