"""The demo's little world: scenes of one described object, and how people would put them in words.

A scene is a shape of a colour and a size that moves before a ground. A clip shows its own scene for a
moment, in focus, and other scenes, out of focus, for the rest of the time: whoever wants to match clip
and caption has to find the frames that count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

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

SHUFFLE_SEED = 0


@dataclass(frozen=True)
class Share:
    """A split's part of all scenes, in their fixed shuffle: which its clips describe, and which distract."""

    described: range
    distractors: range


# Cut once and for all, so that no frame of val or test shows a scene that anybody was trained on.
SHARES = {
    "test": Share(range(0, 500), range(500, 1400)),
    "val": Share(range(1400, 1600), range(1600, 2500)),
    "train": Share(range(2500, 6600), range(6600, SCENE_COUNT)),
}


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


@cache
def shuffled_scenes() -> np.ndarray:
    """All scene numbers in the order that `SHARES` cuts."""
    return np.random.Generator(np.random.PCG64(SHUFFLE_SEED)).permutation(SCENE_COUNT)


def described_scenes(split: str, count: int) -> np.ndarray:
    """Numbers [count] of the first scenes that a split describes; raises ValueError if it has fewer."""
    share = SHARES[split].described
    if count > len(share):
        raise ValueError(f"split {split!r} has {len(share)} scenes, {count} were asked for")
    return shuffled_scenes()[share.start : share.start + count]


def distractor_scenes(split: str) -> np.ndarray:
    """Numbers of the scenes that a split's clips show besides."""
    share = SHARES[split].distractors
    return shuffled_scenes()[share.start : share.stop]


def caption(scene: Scene, generator: np.random.Generator) -> str:
    """One of the ways to say what a scene shows."""
    words = {name: str(generator.choice(WORDS[name][value])) for name, value in vars(scene).items()}
    return str(generator.choice(TEMPLATES)).format(**words)


def shots(scene: Scene, others: np.ndarray, generator: np.random.Generator) -> list[Shot]:
    """The shots of a clip of `scene`: a moment of it somewhere, scenes of the numbers `others` around it."""
    length = int(generator.integers(*MOMENT_FRAMES))
    start = int(generator.integers(0, CLIP_FRAMES - length + 1))
    return [
        *distractors(0, start, others, generator),
        Shot(start, start + length, scene, described=True),
        *distractors(start + length, CLIP_FRAMES, others, generator),
    ]


def distractors(start: int, stop: int, others: np.ndarray, generator: np.random.Generator) -> Iterator[Shot]:
    """Shots of scenes of the numbers `others` that fill [start, stop)."""
    while start < stop:
        end = start + int(generator.integers(*DISTRACTOR_FRAMES))
        end = stop if stop - end < SHORTEST_SHOT else end
        yield Shot(start, end, Scene.number(int(generator.choice(others))), described=False)
        start = end
