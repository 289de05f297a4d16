"""Which images of a COCO file to hold out: python -m benchmarks.training.hold_out INSTANCES.json COUNT > ids.txt.

Of the 2017 validation images alone where the file says which those are, as published weights have seen the others. With
``left-out`` after the count, all that the recipe of the bundled detector does not train on, see :func:`left_out`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SPLIT = "val2017"
UNSURE = "maybe_more_than_labelled"
CROWD = 5  # objects of a class, from which an image counts as one of a crowd of them


def hold_out(content: dict[str, Any], count: int) -> list[int]:
    """Ids of ``count`` images, in order, whose classes and crowds are as frequent as in all that could be taken.

    The images with the rarest of what is still wanted go first (Sechidis et al., ECML 2011), and among those the order
    is that of the ids' digests, so that the result depends on nothing else.
    """
    images = [image["id"] for image in content["images"] if image.get("coco_split", SPLIT) == SPLIT]
    traits = _traits(content)
    order = sorted(images, key=lambda image: hashlib.sha256(str(image).encode()).hexdigest())
    with_trait: dict[Any, list[int]] = defaultdict(list)
    for image in order:
        for trait in traits[image]:
            with_trait[trait].append(image)
    wanted = {trait: count / len(images) * len(found) for trait, found in with_trait.items()}
    chosen: dict[int, None] = {}
    while len(chosen) < count:
        left = {trait: [image for image in found if image not in chosen] for trait, found in with_trait.items()}
        open_traits = [trait for trait, found in left.items() if found and wanted[trait] >= 0.5]
        if open_traits:
            image = left[min(open_traits, key=lambda trait: (len(left[trait]), str(trait)))][0]
        else:
            image = next(image for image in order if image not in chosen)
        chosen[image] = None
        for trait in traits[image]:
            wanted[trait] -= 1
    return sorted(chosen)


def _traits(content: dict[str, Any]) -> dict[int, set[Any]]:
    """By image: the classes in it, those of which it has a crowd, and nothing where it has no objects."""
    counts: dict[int, Counter[int]] = defaultdict(Counter)
    for found in content["annotations"]:
        counts[found["image_id"]][found["category_id"]] += 1
    traits: dict[int, set[Any]] = defaultdict(lambda: {"nothing"})
    for image, classes in counts.items():
        traits[image] = {*classes, *(("crowd", name) for name, number in classes.items() if number >= CROWD)}
    return traits


def left_out(content: dict[str, Any], held_out: Iterable[int]) -> list[int]:
    """Ids of the images that are held out, or may show objects without a label, or are one of many seen before.

    Unlabeled objects would be learned as background. Of the images that published weights have seen, three of five are
    enough to remember by.
    """
    gone = set(held_out)
    for image in content["images"]:
        seen = image.get("coco_split", SPLIT) != SPLIT
        if image.get(UNSURE) or (seen and image["id"] % 5 >= 3):
            gone.add(image["id"])
    return sorted(gone)


def main(annotations: str, count: str, *words: str) -> None:
    """Print the ids: of the images that are held out, or with one more word of all that are left out."""
    content = json.loads(Path(annotations).read_text())
    ids = hold_out(content, int(count))
    command = " ".join(("python -m benchmarks.training.hold_out instances.json", count, *words))
    print(f"# Image ids of coco_more that are not trained on: {command}")
    print("\n".join(map(str, left_out(content, ids) if words else ids)))


if __name__ == "__main__":
    main(*sys.argv[1:])
