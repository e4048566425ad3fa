"""YAML files that people write: read with the line of what is wrong, and no key twice; and the site that WORK keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from petground.labeling.errors import ConfigError, InputError
from petground.labeling.site import Site, site_from_mapping

__all__ = ["read_settings", "site_of_work"]


def read_settings(path: Path, *, what: str = "settings file", fix: str | None = None) -> dict[str, Any]:
    """The mapping that a YAML file holds; empty for an empty file.

    Raises ConfigError when there is no file, with the line for what is no YAML and for a key that stands twice in one
    mapping (YAML 1.2.2, section 3.2.1.3, wants keys unique; PyYAML keeps the last and says nothing), and for a file
    that holds no mapping. what: the kind of file, for the message; fix: the way out when it is missing.
    """
    if not path.is_file():
        raise ConfigError(f"no {what} at {path}", fix=fix)
    try:
        text = path.read_text(encoding="utf-8-sig")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_twins(root, path.name)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        line = f", line {place.line + 1}" if place else ""
        raise ConfigError(f"{path.name}{line} is not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        # ValueError: no UTF-8, or a date that is none; TypeError: a key that is a list
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{path.name} is not YAML: {said}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name} must hold settings as 'key: value'")
    return values


def site_of_work(work: Path) -> Site | None:
    """The conventions that the labels of WORK were made with; None where it keeps none."""
    path = work / "site.json"
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON", fix="run `petground label` again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no settings", fix="run `petground label` again")
    return site_from_mapping(values)


def _refuse_twins(root: yaml.Node | None, name: str) -> None:
    """Raises ConfigError for a key that a mapping holds twice; a merged key (<<) may be written over."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for key, value in node.value:
                waiting.append(value)
                if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                    continue
                line = key.start_mark.line + 1
                if (key.tag, key.value) in lines:
                    raise ConfigError(
                        f"{name}, line {line}: '{key.value}' stands there a second time, first on line "
                        f"{lines[key.tag, key.value]}",
                        fix="take one of the two out",
                    )
                lines[key.tag, key.value] = line
