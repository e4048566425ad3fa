"""The formats by name."""

from __future__ import annotations

import difflib

from petground.labeling.errors import ConfigError
from petground.pipeline.exports import hugging_face, monai_datalist, nnunet, voxtell
from petground.pipeline.exports.layout import Layout

__all__ = ["LAYOUTS", "layout_of"]

LAYOUTS: dict[str, Layout] = {
    "nnunet": nnunet.LAYOUT,
    "voxtell": voxtell.LAYOUT,
    "monai": monai_datalist.LAYOUT,
    "huggingface": hugging_face.LAYOUT,
}


def layout_of(name: str) -> Layout:
    """The format of that name. Raises ConfigError that lists the formats."""
    if name in LAYOUTS:
        return LAYOUTS[name]
    near = difflib.get_close_matches(name, LAYOUTS, n=1)
    raise ConfigError(f"no format '{name}'", fix=f"did you mean {near[0]}?" if near else f"one of {', '.join(LAYOUTS)}")
