"""Drawing scenes: a signed distance tells how far outside of a shape a pixel lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from store.inputs.scenes import Shot

CLIP_PIXELS = 64
SHARP_PIXELS = 1.2
BLURRED_PIXELS = 5.0
NOISE_LEVELS = 3.0
RADIUS_PIXELS = {"small": 7.0, "medium": 11.0, "large": 16.0}
RGB = {
    "red": (215, 40, 40),
    "orange": (240, 140, 30),
    "yellow": (245, 225, 50),
    "green": (60, 190, 70),
    "blue": (50, 90, 225),
    "purple": (140, 60, 190),
    "pink": (250, 140, 190),
    "white": (245, 245, 245),
}
Y, X = np.mgrid[0:CLIP_PIXELS, 0:CLIP_PIXELS].astype(np.float32) + np.float32(0.5)
TURN_FRAMES = 6

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]


def polygon(corners: Sequence[tuple[float, float]]) -> Distance:
    """Signed distance to a polygon: to its nearest edge, negative inside (crossing number)."""

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        nearest = np.full(x.shape, np.inf, np.float32)
        inside = np.zeros(x.shape, bool)
        for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
            edge_x, edge_y = bx - ax, by - ay
            along = np.clip(((x - ax) * edge_x + (y - ay) * edge_y) / (edge_x**2 + edge_y**2), 0, 1)
            nearest = np.minimum(nearest, np.hypot(x - ax - along * edge_x, y - ay - along * edge_y))
            if ay != by:
                crosses = ((ay > y) != (by > y)) & (x < ax + (y - ay) / (by - ay) * edge_x)
                inside ^= crosses
        return np.where(inside, -nearest, nearest)

    return distance


def star(points: int, inner: float, outer: float) -> list[tuple[float, float]]:
    angles = np.pi * np.arange(2 * points) / points
    radii = np.where(np.arange(2 * points) % 2 == 0, outer, inner)
    return [(float(r * np.sin(a)), float(-r * np.cos(a))) for r, a in zip(radii, angles, strict=True)]


def cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    upright = np.maximum(np.abs(x) - 0.3, np.abs(y) - 1)
    level = np.maximum(np.abs(x) - 1, np.abs(y) - 0.3)
    return np.minimum(upright, level)


DISTANCES: dict[str, Distance] = {
    "circle": lambda x, y: np.hypot(x, y) - 0.95,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.82,
    "triangle": lambda x, y: polygon([(0.0, -1.0), (0.866, 0.5), (-0.866, 0.5)])(x, y) - 0.08,
    "star": polygon(star(5, 0.45, 1.1)),
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.74) - 0.24,
    "cross": cross,
    "diamond": polygon([(0.0, -1.15), (0.75, 0.0), (0.0, 1.15), (-0.75, 0.0)]),
    "crescent": lambda x, y: np.maximum(np.hypot(x, y) - 0.98, 0.8 - np.hypot(x - 0.5, y)),
}


def draw_shot(shot: Shot, generator: np.random.Generator) -> np.ndarray:
    """The frames of a shot: uint8 [M, CLIP_PIXELS, CLIP_PIXELS, 3]."""
    scene, count = shot.scene, shot.stop - shot.start
    background = draw_ground(scene.ground, generator)
    x, y, angle = path(scene.motion, count, generator)
    radius = RADIUS_PIXELS[scene.size] * generator.uniform(0.92, 1.08)
    colour = np.array(RGB[scene.colour]) + generator.normal(0, 8, 3)
    edge = SHARP_PIXELS if shot.described else BLURRED_PIXELS
    frames = np.empty((count, CLIP_PIXELS, CLIP_PIXELS, 3), np.uint8)
    for frame in range(count):
        right, down = X - x[frame], Y - y[frame]
        cos, sin = np.cos(angle[frame]), np.sin(angle[frame])
        turned = (cos * right + sin * down) / radius, (cos * down - sin * right) / radius
        distance = DISTANCES[scene.shape](*turned) * radius
        cover = np.clip(0.5 - distance / edge, 0, 1)[..., None]
        picture = background * (1 - cover) + colour * cover
        frames[frame] = np.clip(picture + generator.normal(0, NOISE_LEVELS, picture.shape), 0, 255)
    return frames


def path(
    motion: str, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre x [M], y [M] in pixels and angle [M] in radians of an object in motion."""
    middle = CLIP_PIXELS / 2
    start_x, start_y = middle + generator.uniform(-8, 8, 2)
    way = np.linspace(-1, 1, count) * generator.uniform(12, 18)
    angle = np.full(count, generator.uniform(-0.25, 0.25))
    x, y = np.full(count, start_x), np.full(count, start_y)
    if motion in ("left", "right"):
        x = middle + (way if motion == "right" else -way)
    elif motion in ("up", "down"):
        y = middle + (way if motion == "down" else -way)
    elif motion == "spin":
        angle = angle + 2 * np.pi * np.arange(count) / TURN_FRAMES
    return x, y, angle


def draw_ground(ground: str, generator: np.random.Generator) -> np.ndarray:
    """A background, float32 [CLIP_PIXELS, CLIP_PIXELS, 3], shifted at random."""
    grain = generator.random((CLIP_PIXELS, CLIP_PIXELS, 1), dtype=np.float32) - np.float32(0.5)
    shift_x, shift_y = generator.integers(0, 16, 2)
    x, y = X + shift_x, Y + shift_y
    grounds: dict[str, Callable[[], np.ndarray]] = {
        "grass": lambda: np.array([40, 95, 45]) + grain * 50,
        "sand": lambda: np.array([170, 150, 100]) + grain * 30,
        "snow": lambda: np.array([200, 210, 220]) + grain * 14,
        "night": lambda: np.where(grain > 0.485, 200, np.array([15, 18, 45])),
        "water": lambda: np.array([60, 125, 160]) + 22 * np.sin(y * 0.8 + 2 * np.sin(x * 0.2))[..., None],
        "bricks": lambda: np.where(mortar(x, y)[..., None], [150, 140, 130], [130, 65, 50]),
        "tiles": lambda: np.where(((x // 10 + y // 10) % 2 > 0)[..., None], [90, 90, 95], [135, 135, 140]),
        "wood": lambda: np.array([110, 75, 45]) + planks(x, y)[..., None],
    }
    return np.broadcast_to(grounds[ground](), (CLIP_PIXELS, CLIP_PIXELS, 3)).astype(np.float32)


def mortar(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where the joints of a brick wall run: every second row is shifted by half a brick."""
    return (y % 8 < 1.5) | ((x + 8 * (y // 8 % 2)) % 16 < 1.5)


def planks(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 12 * np.sin(x * 0.25 + np.sin(y * 0.1)) - 35 * (y % 16 < 1.5)
