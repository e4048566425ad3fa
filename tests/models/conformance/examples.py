"""Small options for each registered block, so that the suite can build it: key -> options. A missing key means {}."""

from __future__ import annotations

from typing import Any

ATTENTION: dict[str, dict[str, Any]] = {
    "swin_window_3d": {"window": [2, 2, 2]},
    "swin_v2_cosine_3d": {"window": [2, 2, 2], "hidden": 8},
    "halo": {"window": [2, 2, 2], "halo": [1, 1, 1]},
    "lsda": {"window": [2, 2, 2]},
    "dual_window_channel": {"window": [2, 2, 2]},
    "bilevel_routing": {"regions": [2, 2, 2], "topk": 2},
    "aggregated_attention": {"pool": [2, 2, 2], "hidden": 8},
    "duo": {"sinks": 2, "span": 3, "radius": 1},
    "moa_spans": {"sinks": 2, "span": [2, 4], "radius": [1, 2], "growth": [0.0, 0.1]},
    "moh": {"shared_heads": 1, "active_heads": 2},
    "combiner": {"block": [2, 2, 3], "block_tokens": 4},
    "core_context": {"block": [1, 2, 2], "block_tokens": 3, "near": [1, 0, 1], "near_tokens": 3},
    "landmark": {"block": [2, 2, 2], "block_tokens": 3, "top_k": 2},
    "routing": {"clusters": 3, "local_heads": 1, "radius": [1, 1, 1]},
    "size_switched": {"width": 2},
    "sparsifiner": {"keep": 5, "n_down": 4, "lattice_zyx": [2, 3, 3]},
}
TOKEN_REDUCTION: dict[str, dict[str, Any]] = {
    "fopru": {"strategy": "slice"},
    "hiprune": {"alpha": 0.5},
    "ia_red2": {"heads": 2},
    "token_transition": {"heads": 2},
    "vflowopt": {"recycled": 2},
    "aim_merge_prune": {"heads": 2, "iterations": 3},
    "recoverable_compression": {"clusters": 4, "neighbours": 5, "sample": 50},
    "lookup": {"coarse_zyx": [2, 2, 3], "heads": 2},
    "perturbed_topk_tubes": {"tubes": 3, "kernel_zyx": [2, 2, 2], "stride_zyx": [1, 2, 2], "samples": 20},
    "dyn_perceiver": {"heads": 2, "latents": 4},
    "dyvte_exit": {"heads": 2, "hidden": 8},
    "mue_exit": {"heads": 2, "threshold": 0.999},
    "similarity_resampler": {"heads": 2, "links": True, "window_zyx": [2, 2, 2]},
    "sparseformer_roi": {"latents": 6, "points": 4, "repeats": 2, "heads": 2, "out_points": 4},
}
MIXER: dict[str, dict[str, Any]] = {"gnconv3d": {"order": 3, "kernel": 3}}
FUSION: dict[str, dict[str, Any]] = {
    "contextual_gate": {"num_heads": 2, "norm": True, "coordinates": "fourier"},
    "deepstack": {"num_heads": 2, "coordinates": "fourier"},
    "glca_pwca": {"num_heads": 2, "cells": 3, "coordinates": "fourier"},
    "loopback": {"num_heads": 2, "queries": 4, "rounds": 2, "coordinates": "fourier"},
    "lxmert_cross": {"num_heads": 2, "layers": 2, "coordinates": "linear"},
    "mixed_attention": {"num_heads": 2, "coordinates": "fourier"},
    "similarity_as_points": {"num_heads": 2, "points": 6},
    "v2v_t2v": {"num_heads": 2, "cells": 3, "coordinates": "fourier"},
    "vision_remember": {"num_heads": 2, "coordinates": "fourier"},
}
