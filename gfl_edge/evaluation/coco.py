"""COCO's files of instances, and the names of its 80 categories in the order of every published COCO detector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gfl_edge.errors import AnnotationError

_NAMES = """\
person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant|stop sign|
parking meter|bench|bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|backpack|umbrella|
handbag|tie|suitcase|frisbee|skis|snowboard|sports ball|kite|baseball bat|baseball glove|skateboard|
surfboard|tennis racket|bottle|wine glass|cup|fork|knife|spoon|bowl|banana|apple|sandwich|orange|
broccoli|carrot|hot dog|pizza|donut|cake|chair|couch|potted plant|bed|dining table|toilet|tv|laptop|
mouse|remote|keyboard|cell phone|microwave|oven|toaster|sink|refrigerator|book|clock|vase|scissors|
teddy bear|hair drier|toothbrush"""

COCO_CLASSES: tuple[str, ...] = tuple(_NAMES.replace("\n", "").split("|"))


def read_instances(path: str | Path) -> dict[str, list[dict[str, Any]]]:
    """The content of a COCO instances file, with lists of images, annotations and categories.

    Raises:
        AnnotationError: it cannot be read, or is none.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read ({error.strerror}). Give a COCO instances JSON") from error
    except ValueError as error:
        raise AnnotationError(f"{path} is not JSON ({error}). Give a COCO instances JSON") from error
    needed = ("images", "annotations", "categories")
    if not isinstance(content, dict) or any(not isinstance(content.get(key), list) for key in needed):
        raise AnnotationError(f"{path} is no COCO instances file: expected lists {', '.join(needed)}")
    return content
