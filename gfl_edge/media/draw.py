"""Annotated images: boxes and labels on a frame, a status line, and contact sheets."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.detections import Detections
from gfl_edge.errors import InputError
from gfl_edge.media.text import text_size, write_text
from gfl_edge.ops.preprocess import Image

Color = tuple[int, int, int]  # BGR, 0..255

PALETTE_SIZE = 80
SIDE_PER_LINE_PX = 400  # lines get a pixel wider for each: 2 pixels at 640x480, 5 at 1080p; a side is sqrt(area)
TEXT_PER_SIDE = 0.018  # height of a capital letter in sides: 10 pixels at 640x480, 26 at 1080p
MIN_TEXT_PX, READABLE_TEXT_PX = 9, 5  # aimed at, and what is still drawn where a frame is narrow
SHEET_GAP_PX = 4
BAND_SHARE = 0.4  # of the color, in what is shaded
MAX_NAME = 60  # characters of a label's name; longer ones would only be measured, as no frame has room for them

_BLACK: Color = (0, 0, 0)
_WHITE: Color = (255, 255, 255)


def class_color(class_id: int) -> Color:
    """The color of a class: always the same, and far from those of the classes before it, up to 80 classes."""
    return palette()[class_id % PALETTE_SIZE]


@functools.cache
def palette() -> tuple[Color, ...]:
    """80 colors, neither pale nor dark, each as far as possible from all before it in CIE L*a*b*."""
    steps = np.arange(0, 256, 15, dtype=np.float32)
    colors = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    cv2 = optional.load("cv2")
    lab: NDArray[np.float32] = cv2.cvtColor(colors[None] / np.float32(255), cv2.COLOR_BGR2LAB)[0]
    vivid = (lab[:, 0] > 45) & (lab[:, 0] < 92) & (np.hypot(lab[:, 1], lab[:, 2]) > 40)
    colors, lab = colors[vivid], lab[vivid]
    chosen = [int(np.argmin(np.abs(colors - (60, 180, 75)).sum(axis=1)))]  # green first: it is rare in streets
    distance = np.full(len(lab), np.inf, np.float32)
    while len(chosen) < PALETTE_SIZE:
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return tuple((int(blue), int(green), int(red)) for blue, green, red in colors[chosen])


def draw_detections(frame: Image, detections: Detections, *, out: Image | None = None, bands: bool = False) -> Image:
    """Draw boxes and labels such as "person 0.87", lowest scores first so that the best lie on top.

    The label of an object that is followed has its identity in it: "person #7 0.87". Labels stay inside the frame; one
    that would be too small to read there is left out.

    Args:
        frame: uint8 ``[H, W, 3]`` BGR.
        detections: boxes in pixels of the frame.
        out: C-contiguous image of the frame's shape to draw into, which may be ``frame`` itself; default a new one.
        bands: shade one sigma to either side of each edge, where the detections have ``edge_sigma``.

    Returns:
        ``out``, or the new image.
    """
    image = _canvas(frame, out)
    cv2 = optional.load("cv2")
    height, width = image.shape[:2]
    thickness = 1 + round(_side(image) / SIDE_PER_LINE_PX)
    corners = np.clip(np.rint(detections.boxes), 0, (width - 1, height - 1) * 2).astype(int).tolist()
    ascending = range(len(detections) - 1, -1, -1)
    if bands and detections.edge_sigma is not None:
        for i in ascending:
            color = class_color(int(detections.class_ids[i]))
            _draw_bands(image, detections.boxes[i], detections.edge_sigma[i], color)
    for i in ascending:
        left, top, right, bottom = corners[i]
        cv2.rectangle(image, (left, top), (right, bottom), class_color(int(detections.class_ids[i])), thickness)
    for i in ascending:
        name = detections.class_names[detections.class_ids[i]]
        name = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 3]}..."
        if detections.track_ids is not None and detections.track_ids[i] >= 0:
            name = f"{name} #{detections.track_ids[i]}"
        color = class_color(int(detections.class_ids[i]))
        draw_label(image, f"{name} {detections.scores[i]:.2f}", corners[i][0], corners[i][1], color)
    return image


def _draw_bands(image: Image, box: NDArray[np.float32], sigma: NDArray[np.float32], color: Color) -> None:
    """Shade the pixels that are at most one sigma from an edge: all between an outer box and an inner one."""
    cv2 = optional.load("cv2")
    height, width = image.shape[:2]
    outward, limits = sigma * np.array((-1, -1, 1, 1), np.float32), (width, height) * 2
    outer, inner = (np.clip(np.rint(edges), 0, limits).astype(int) for edges in (box + outward, box - outward))
    x1, y1, x2, y2 = (int(edge) for edge in outer)
    left, top, right, bottom = (int(edge) for edge in inner)
    if left >= right or top >= bottom:  # the bands of opposite edges meet
        left, top, right, bottom = x2, y2, x2, y2
    strips = ((x1, y1, x2, top), (x1, bottom, x2, y2), (x1, top, left, bottom), (right, top, x2, bottom))
    for start_x, start_y, end_x, end_y in strips:
        if start_x < end_x and start_y < end_y:
            part = image[start_y:end_y, start_x:end_x]
            part[...] = cv2.addWeighted(part, 1 - BAND_SHARE, np.full_like(part, color), BAND_SHARE, 0)


def draw_status(image: Image, text: str, *, out: Image | None = None) -> Image:
    """Write ``text`` on black into the upper left corner of ``image`` (uint8 ``[H, W, 3]``); ``out`` as above."""
    image = _canvas(image, out)
    draw_label(image, text, 0, 0, _BLACK)
    return image


def contact_sheet(images: Sequence[Image], columns: int, width: int) -> Image:
    """A contact sheet: ``images`` (uint8 ``[H, W, 3]`` of any sizes) row by row on black.

    Each row is as high as its highest image, at most as high as a cell is wide.

    Args:
        images: at least one.
        columns: images in a row.
        width: of the sheet, in pixels.

    Raises:
        InputError: no image, or no room for the columns.
    """
    cell = (width - SHEET_GAP_PX * (columns - 1)) // columns if columns > 0 else 0
    if not images or cell < 1:
        raise InputError(f"{len(images)} images in {columns} columns on {width} pixels: expected room for at least one")
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    heights = [max(round(cell * image.shape[0] / image.shape[1]) for image in row) for row in rows]
    heights = [min(cell, max(1, height)) for height in heights]
    sheet = np.zeros((sum(heights) + SHEET_GAP_PX * (len(rows) - 1), width, 3), np.uint8)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, image in enumerate(row):
            left = column * (cell + SHEET_GAP_PX)
            sheet[top : top + height, left : left + cell] = fitted(image, (height, cell))
        top += height + SHEET_GAP_PX
    return sheet


def fitted(image: Image, size_hw: tuple[int, int]) -> Image:
    """``image`` (uint8 ``[H, W, 3]``) resized into ``size_hw`` with its aspect ratio, centered on black."""
    if image.shape[:2] == size_hw:
        return image
    cv2 = optional.load("cv2")
    ratio = min(size_hw[0] / image.shape[0], size_hw[1] / image.shape[1])
    height, width = max(1, round(image.shape[0] * ratio)), max(1, round(image.shape[1] * ratio))
    top, left = (size_hw[0] - height) // 2, (size_hw[1] - width) // 2
    rule = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR  # linear aliases when it shrinks
    fit = np.zeros((*size_hw, 3), np.uint8)
    fit[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=rule)
    return fit


def _canvas(frame: Image, out: Image | None) -> Image:
    """``out`` with the pixels of ``frame``."""
    if out is None:
        return np.array(frame, order="C")
    if out is not frame:
        out[...] = frame
    return out


def _side(image: Image) -> float:
    return float(np.sqrt(image.shape[0] * image.shape[1]))


def draw_label(image: Image, text: str, left: int, box_top: int, fill: Color) -> None:
    """Text on a filled rectangle above ``box_top``, or below it where there is no room above, inside the image."""
    cv2 = optional.load("cv2")
    height, width = image.shape[:2]
    capital_px = max(MIN_TEXT_PX, TEXT_PER_SIDE * _side(image))
    label_height, label_width, _ = _measure(text, capital_px)
    capital_px *= min(1.0, width / label_width, height / label_height)
    if capital_px < READABLE_TEXT_PX:
        return
    label_height, label_width, below_px = _measure(text, capital_px)
    x = min(max(left, 0), max(0, width - label_width))
    y = box_top - label_height if box_top >= label_height else min(box_top, max(0, height - label_height))
    corners = (x, y), (x + label_width - 1, y + label_height - 1)
    ink = _contrasting(fill)
    cv2.rectangle(image, *corners, fill, cv2.FILLED)
    cv2.rectangle(image, *corners, ink, 1)  # keeps labels of one class apart where they overlap
    write_text(image, text, x + _padding(capital_px), y + label_height - 1 - below_px, capital_px, ink)


def _measure(text: str, capital_px: float) -> tuple[int, int, int]:
    """Height and width of a label with its padding, and how far its baseline lies above its lower edge, in pixels."""
    width, above, below = text_size(text, capital_px)
    padding = _padding(capital_px)
    return above + padding + padding + below, width + 2 * padding, padding + below


def _padding(capital_px: float) -> int:
    return max(2, round(capital_px / 3))


def _contrasting(fill: Color) -> Color:
    """Black or white, whichever is easier to read on ``fill`` by the contrast ratio of WCAG 2."""
    linear = (np.array(fill) / 255) ** 2.2
    luminance = float(linear @ (0.0722, 0.7152, 0.2126))
    return _BLACK if (luminance + 0.05) ** 2 > 0.05 * 1.05 else _WHITE
