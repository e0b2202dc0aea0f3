"""High dynamic range and wide colours to those of an ordinary screen.

A picture in HDR keeps brightness on another scale and colours by other primaries; shown as it is, it looks grey and
flat, as no picture did that a model has learnt from. Curves and matrices are those of ITU-R BT.2100 (PQ and HLG),
BT.2087 (primaries) and BT.2390 (the roll-off of what is brighter than the screen).
"""

from typing import Any

import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc

Values = np.ndarray[tuple[int, ...], np.dtype[np.floating[Any]]]
Picture = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

WHITE = 203.0
"""cd/m2 of reference white in HDR (BT.2408), which is the brightest of an ordinary screen."""
PEAK = 1000.0
"""cd/m2 of the brightest that is told from what is less bright: that of the screens on which HDR is made."""
GAMMA = 2.4
ROWS = 64
"""Of a picture at once: bounds the memory that numbers in the place of bytes take."""

TO_ORDINARY_PRIMARIES = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
BRIGHTNESS = np.array([0.2627, 0.6780, 0.0593])


def to_ordinary_colours(picture: Picture, transfer: int, primaries: int) -> Picture:
    """An RGB picture, uint8 `(height, width, 3)`, as an ordinary screen shows it. `transfer` and `primaries` are the
    numbers of ITU-T H.273 that its frame has; a picture that is ordinary by them, or has none, comes back as it is.
    """
    if transfer not in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67) and primaries != ColorPrimaries.BT2020:
        return picture
    shown = np.empty_like(picture)
    for row in range(0, len(picture), ROWS):
        signal = picture[row : row + ROWS].astype(np.float32) / np.float32(255)
        shown[row : row + ROWS] = np.rint(255 * ordinary(signal, transfer, primaries))
    return shown


def ordinary(signal: Values, transfer: int, primaries: int) -> Values:
    """R'G'B' of such a transfer and such primaries to those of BT.709 seen on a screen: `(..., 3)`, from 0 to 1."""
    if transfer == ColorTrc.SMPTE2084:
        light = _rolled_off(pq_light(signal))
    elif transfer == ColorTrc.ARIB_STD_B67:
        light = _rolled_off(hlg_light(signal))
    else:
        light = signal**GAMMA
    if primaries == ColorPrimaries.BT2020:
        light = light @ TO_ORDINARY_PRIMARIES.T.astype(light.dtype)
    return np.asarray(light.clip(0.0, 1.0) ** (1 / GAMMA))


def pq_light(signal: Values) -> Values:
    """cd/m2 of a PQ signal (BT.2100, table 4)."""
    root = signal ** (32 / 2523)
    return np.asarray(10000 * (np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)) ** (8192 / 1305))


def pq_signal(light: Values) -> Values:
    """The inverse of `pq_light`."""
    root = (light / 10000) ** (1305 / 8192)
    return np.asarray(((107 / 128 + 2413 / 128 * root) / (1 + 2392 / 128 * root)) ** (2523 / 32))


def hlg_light(signal: Values) -> Values:
    """cd/m2 on a screen of `PEAK` of an HLG signal, `(..., 3)` (BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return np.asarray(PEAK * (scene @ BRIGHTNESS.astype(scene.dtype))[..., None] ** 0.2 * scene)


def _rolled_off(light: Values) -> Values:
    """cd/m2 up to `PEAK` to parts of `WHITE`: what is dark or middling as it was, what is brighter than the screen bent
    below its white, by each pixel's strongest colour, so that hues stay (BT.2390, 5.4.1).
    """
    strongest = light.max(-1, keepdims=True)
    top, white = float(pq_signal(np.array(PEAK))), float(pq_signal(np.array(WHITE)))
    signal, brightest = np.minimum(pq_signal(strongest) / top, 1.0), white / top
    knee = 1.5 * brightest - 0.5
    t = (signal - knee) / (1 - knee)
    bent = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * brightest
    shown = pq_light(np.where(signal < knee, signal, bent) * top)
    return np.asarray(light * shown / np.maximum(strongest, 1e-9) / WHITE)
