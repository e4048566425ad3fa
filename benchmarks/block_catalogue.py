"""The generated parts of docs/blocks.md, from the registry and the figures in docs/results.

    python benchmarks/block_catalogue.py            writes them
    python benchmarks/block_catalogue.py --check    says whether the page is as it would be written (a test does)

What stands between the page's markers, `<!-- NAME: generated -->` and `<!-- NAME: end -->`, is replaced; the rest is
written by hand.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also where the shell keeps it out (PYTHONSAFEPATH)

from block_tables import cost_table, table, trained_table

from petground.models.registry import find, list_blocks

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "blocks.md"
PATTERNS = ("self", "cross", "causal")
TESTS: dict[str, tuple[str, ...]] = {  # where a block's property is asserted; below tests/models
    "conformance/test_attention_blocks.py": ("softmax",),
    "conformance/test_reduction_blocks.py": ("token_reduction/none",),
    "test_contextual_gate.py": ("contextual_gate", "fusion/none"),
    "blocks/test_recurrent_and_routed.py": ("aaren", "agent", "kmeans_cross", "size_switched"),
    "blocks/test_linear_family.py": ("lightning_attention", "lightning2", "based", "hedgehog"),
    "blocks/test_scored_family.py": ("softplus_reweight", "selective_temperature", "pointer"),
    "blocks/test_window_attention.py": ("swin_window_3d", "swin_v2_cosine_3d", "halo", "lsda"),
    "blocks/test_window_peers.py": ("swin_window_3d", "swin_v2_cosine_3d", "halo", "lsda", "dual_window_channel"),
    "blocks/test_relative_bias.py": ("swin_window_3d", "swin_v2_cosine_3d", "lsda"),
    "blocks/test_dual_window_channel.py": ("dual_window_channel",),
    "blocks/test_bilevel_routing.py": ("bilevel_routing",),
    "blocks/test_aggregated_attention.py": ("aggregated_attention",),
    "blocks/test_headwise_attention.py": ("duo", "moa_spans", "moh"),
    "blocks/test_span_profile.py": ("moa_spans",),
    "blocks/test_summary_attention.py": ("combiner", "core_context", "landmark"),
    "blocks/test_routed_attention.py": ("routing", "sparsifiner"),
    "blocks/test_ranked_reductions.py": (
        *("evit_fuse", "cls_topk", "cls_topk_ensemble", "fopru", "gsearch_psigmoid", "vflowopt", "token_transition"),
    ),
    "blocks/test_structured_reductions.py": ("hiprune", "flowcut", "vflowopt", "token_transition"),
    "blocks/test_chosen_reductions.py": ("kcenter_diversity", "ia_red2"),
    "blocks/test_merge_reductions.py": ("aim_merge_prune", "recoverable_compression"),
    "blocks/test_latent_reductions.py": ("lookup", "similarity_resampler", "sparseformer_roi"),
    "blocks/test_depth_reductions.py": ("p_mod", "gamma_mod"),
    "blocks/test_tube_reductions.py": ("perturbed_topk_tubes",),
    "blocks/test_exit_reductions.py": ("dyn_perceiver", "dyvte_exit", "mue_exit"),
    **{
        f"blocks/test_{key}.py": (key,)
        for key in (
            *("gnconv3d", "conv_glu", "lxmert_cross", "v2v_t2v", "vision_remember", "deepstack", "glca_pwca"),
            *("mixed_attention", "loopback", "similarity_as_points"),
        )
    },
}


def tests_of(row: Mapping[str, Any]) -> list[str]:
    """Files below tests/models that assert a block's property."""
    names = {row["key"] if row["key"] != "none" else "", f"{row['slot']}/{row['key']}"}
    return [path for path, keys in TESTS.items() if names & set(keys)]


def overview(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for slot, own in _by(rows, "slot").items():
        attention = slot == "attention"
        lines += [f"**{slot}** ({len(own)})", ""]
        heads = ["key", "system", *(["patterns"] if attention else []), "cost", "what it does"]
        cells = [
            [_link(row), _system(row["paper"]), *([_patterns(row)] if attention else []), row["cost"], row["summary"]]
            for row in own
        ]
        lines += [*table(heads, cells), ""]
    return lines[:-1]


def compositions(rows: list[dict[str, Any]]) -> list[str]:
    """Classes of several keys, with what a key fixes other than the class's own defaults."""
    cells, single = [], 0
    for module, own in _by(rows, "module").items():
        single += not own[0]["preset"]
        for row in own if own[0]["preset"] else ():
            takes = inspect.signature(find(row["slot"], row["key"]).cls).parameters
            fixed = {name: value for name, value in row["preset"].items() if not _same(value, takes[name].default)}
            knobs = ", ".join(f"{name}: {_word(value)}" for name, value in fixed.items())
            free = ", ".join(name for name in row["options"] if name != "num_heads")
            cells.append([f"`{module.split(':')[1]}`", _link(row), knobs or "nothing: the defaults", free or "-"])
    rest = f"The other {single} keys are a class each, named in their entries."
    return [*table(["class", "key", "fixed by the key", "left to the config"], cells), "", rest]


def _same(value: Any, default: Any) -> bool:
    return (
        _word(value) == _word(list(default) if isinstance(default, tuple) else default)
        if (default is not inspect.Parameter.empty)
        else False
    )


def entries(rows: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    first: dict[str, Mapping[str, Any]] = {}
    for slot, own in _by(rows, "slot").items():
        lines += [f"### {slot}", ""]
        for row in own:
            lines += _entry(row, first.setdefault(row["module"], row))
    return lines[:-1]


def _entry(row: Mapping[str, Any], first: Mapping[str, Any]) -> list[str]:
    """One block; `first` is the entry that holds its class's equation."""
    number = _number(row["paper"])
    paper = row["paper"].replace(f"arXiv {number}", f"[arXiv {number}](https://arxiv.org/abs/{number})")
    facts = {
        "Source": paper,
        "Built": row["form"],
        "Cost": f"{row['cost']}; patterns: {_patterns(row)}" if row["patterns"] else row["cost"],
        "Serves": ", ".join(row["serves"]),
        "Kernels": "; ".join(_operator(row, name) for name in row["operators"]),
        "Property": row["property"],
        "Asserted in": ", ".join(f"`tests/models/{path}`" for path in tests_of(row)),
        "Class": f"`{row['module'].replace(':', '.')}`"
        + "".join(f", {name}={_word(value)}" for name, value in row["preset"].items()),
    }
    options = [[f"`{name}`", f"`{_word(value)}`", _meaning(row, name)] for name, value in row["options"].items()]
    return [
        f'#### <a id="{_anchor(row)}"></a>{row["key"]}',
        row["summary"],
        "",
        *(["```text", row["equation"], "```"] if row is first else [f"Equation: that of {_link(first)}.", ""]),
        *(f"- {name}: {fact}" for name, fact in facts.items() if fact),
        "",
        *(table(["option", "default", "meaning"], options) if options else ["No options."]),
        "",
    ]


def _operator(row: Mapping[str, Any], name: str) -> str:
    if name == "torch_sdpa":
        return "PyTorch's fused attention"
    needed = f", with {row['kernels_need'][name]}" if name in row["kernels_need"] else ""
    return f"`{name}` ({', '.join(row['operators'][name])}{needed})"


def _meaning(row: Mapping[str, Any], name: str) -> str:
    text: str = row["meanings"].get(name, "")
    words = [_word(word) for word in row["choices"].get(name, ())]
    if words and not all(re.search(rf"\b{re.escape(word)}\b", text) for word in words):
        text = f"{text.rstrip('.')}; one of {', '.join(words)}".strip("; ")
    return text


def _by(rows: list[dict[str, Any]], name: str) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row[name]].append(row)
    return groups


def _anchor(row: Mapping[str, Any]) -> str:
    return f"{row['slot']}-{row['key']}".replace("_", "-")


def _links(rows: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    return {(row["slot"], row["key"]): _link(row) for row in rows}


def _link(row: Mapping[str, Any]) -> str:
    return f"[{row['key']}](#{_anchor(row)})"


def _patterns(row: Mapping[str, Any]) -> str:
    return " ".join(name for name in PATTERNS if name in row["patterns"])


def _number(paper: str) -> str | None:
    found = re.search(r"arXiv (\d{4}\.\d{4,5})", paper)
    return found[1] if found else None


def _system(paper: str) -> str:
    """The system's name, as a link: of a title what stands in brackets at its end, or its shorter side of a colon."""
    title = re.sub(r"(, [A-Z]\w+ \d{4})?, arXiv.*", "", paper)
    name = found[1] if (found := re.search(r"\(([^()]+)\)$", title)) else min(title.split(": "), key=len)
    number = _number(paper)
    return f"[{name}](https://arxiv.org/abs/{number})" if number else name or "-"


def _word(value: Any) -> str:
    return "null" if value is None else json.dumps(value).strip('"')


PARTS: dict[str, Callable[[list[dict[str, Any]]], list[str]]] = {
    "overview": overview,
    "compositions": compositions,
    "cost": lambda rows: cost_table(_links(rows)),
    "trained": lambda rows: trained_table(_links(rows)),
    "catalogue": entries,
}


def written(page: str) -> str:
    """The page with its generated parts made anew. Raises ValueError when one has no place in it."""
    rows = list_blocks()
    for name, part in PARTS.items():
        begin, end = f"<!-- {name}: generated by benchmarks/block_catalogue.py -->\n", f"<!-- {name}: end -->"
        if page.count(begin) != 1 or page.count(end) != 1:
            raise ValueError(f"docs/blocks.md: the markers of {name} must stand in it once")
        before, rest = page.split(begin)
        page = before + begin + "\n".join(part(rows)) + "\n" + end + rest.split(end, 1)[1]
    return page


def main(arguments: list[str]) -> int:
    page = PAGE.read_text(encoding="utf-8")
    made = written(page)
    if "--check" in arguments:
        sys.stdout.write(
            "as it would be written\n" if made == page else "stale: python benchmarks/block_catalogue.py\n"
        )
        return int(made != page)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
