"""The list of those that rank the voxels and keep the best."""

from __future__ import annotations

from petground.models.blocks.contract import Block
from petground.models.blocks.token_reduction.flowcut import FlowCut
from petground.models.blocks.token_reduction.hiprune import HiPrune
from petground.models.blocks.token_reduction.interpreter import Interpreter
from petground.models.blocks.token_reduction.kcenter import KCenterDiversity
from petground.models.blocks.token_reduction.ranked import RankedReduction
from petground.models.blocks.token_reduction.scheduled import ScheduledReduction
from petground.models.blocks.token_reduction.token_transition import TokenTransition
from petground.models.blocks.token_reduction.vflowopt import VFlowOpt

__all__ = ["RANKING"]

_CHOICE = {
    "voxels.text.*": "The map of the sentence to the voxels' width, where it serves a choice that has no gradient."
}

RANKING = (
    Block(
        "token_reduction",
        "evit_fuse",
        RankedReduction,
        "Not All Patches are What You Need: EViT, arXiv 2202.07800",
        "The voxels that the sentence attends to most stay, the others become one token, weighted by that attention.",
        preset={
            "key": "evit_fuse",
            "score": "class",
            "rest": "fuse",
            "paper_keep": 0.7,
            "paper_query": "text",
            "paper_levels": 1,
            "levels": 1,
            "strategy": "rank",
            "sample": 0,
        },
        cost="N d",
        idle=_CHOICE,
        form="As in the public code: the fused token is the plain sum of a_n x_n. The sentence's pooled state takes "
        "the class token's place, the tokens are the keys. No warm-up of the rate in training: "
        "schedules.warm_up_keep is for a loop of your own, from Python only.",
        property="A share of 1 is the identity; the fused token is the attention-weighted sum of exactly the "
        "dropped, which get it back; kept sets are nested in the budget.",
    ),
    Block(
        "token_reduction",
        "cls_topk",
        RankedReduction,
        "[CLS] Attention is All You Need (FasterVLM), arXiv 2412.01818",
        "The voxels that the mean voxel attends to most stay, whatever the sentence.",
        preset={
            "key": "cls_topk",
            "score": "class",
            "rest": "drop",
            "paper_keep": 0.25,
            "paper_query": "mean",
            "paper_levels": 1,
            "levels": 1,
            "sample": 0,
        },
        cost="N d",
        idle=_CHOICE,
        form="The mean voxel takes the class token's place, so that the choice does not depend on the sentence "
        "(query: text makes it); the tokens are the keys.",
        property="A share of 1 is the identity; sets are nested in the budget and in order of place; the sentence"
        " does not change the choice.",
    ),
    Block(
        "token_reduction",
        "cls_topk_ensemble",
        RankedReduction,
        "[CLS] Token Tells Everything Needed (VTC-CLS), arXiv 2412.05819",
        "As cls_topk, with the attention of several resolutions added up.",
        preset={
            "key": "cls_topk_ensemble",
            "score": "class",
            "rest": "drop",
            "paper_keep": 0.25,
            "paper_query": "mean",
            "paper_levels": 3,
            "strategy": "rank",
            "sample": 0,
        },
        cost="N d",
        idle=_CHOICE,
        form="Cubes of 1, 2, 4 ... voxels stand for the encoder's layers (`levels`, 3 where not given); scores "
        "[B, L, N] give real ones, and the caller leaves out the last.",
        property="One layer is cls_topk; the order of layers does not matter, and a layer of zeros is as if it "
        "were left out; sets are nested.",
    ),
    Block(
        "token_reduction",
        "fopru",
        RankedReduction,
        "FoPru: Focal Pruning, arXiv 2411.14164",
        "The voxels that receive most attention stay: the best anywhere, whole rows, or whole axial slices.",
        preset={
            "key": "fopru",
            "score": "received",
            "rest": "drop",
            "paper_keep": 0.25,
            "paper_query": "mean",
            "paper_levels": 1,
            "query": "mean",
            "levels": 1,
        },
        cost="N^2 d in time (sample N d), N d in memory; N with scores",
        form="One layer's map, of the tokens themselves; rows run along x, slices are axial (not in the paper).",
        property="Rows and slices are kept whole; the choice goes with the voxels when they are reordered; sets "
        "are nested and in order; a share of 1 is the identity.",
    ),
    Block(
        "token_reduction",
        "hiprune",
        HiPrune,
        "HiPrune: Hierarchical Attention, arXiv 2508.00553",
        "Anchors by a middle layer, their six neighbours, and registers by a deep layer stay.",
        cost="N^2 d in time (sample N d), N d in memory; N with scores",
        form="In 3D: seven voxels to an anchor, no wrapping at the ends of rows; voxels and their 2 x 2 x 2 means "
        "stand for the two layers unless scores [B, L, N] give them.",
        property="Exactly the asked number stays, with every neighbour of an anchor that the grid has, none "
        "across the end of a row; alpha 0 is the best of the deep layer.",
    ),
    Block(
        "token_reduction",
        "flowcut",
        FlowCut,
        "FlowCut: Rethinking Redundancy via Information Flow, arXiv 2505.19536",
        "Attention, likeness and length, summed over layers; a focused map prunes fast, a diffuse one slowly.",
        cost="N d",
        idle=_CHOICE,
        form="Score and ratio of the public code; the mean voxel for the class token; cubes of 1, 2, 4, 8 voxels for "
        "the layers unless scores [B, L, N] give them; the target is a floor, not forced.",
        property="A uniform map prunes nothing, a focused one its full share; the layers' sets are a falling "
        "chain that never goes below the target; a token without value scores nothing.",
    ),
    Block(
        "token_reduction",
        "vflowopt",
        VFlowOpt,
        "VFlowOpt: Visual Information Flow-Guided Optimization, arXiv 2508.05211",
        "What global voxels look at and where grey levels vary stays; the pruned become a few recycled tokens.",
        cost="2 N^2 d in time (2 sample N d), N d in memory; N bins with scores",
        form="Importance of the public code; a token's length for the pixels of its patch; runs by place for the "
        "recycled tokens (the paper's way of dealing them out was not found). Its search, search.bayesian_search, "
        "is run from Python only.",
        property="Equal neighbourhoods have entropy 0; without entropy and threshold importance is the mean "
        "attention received; recycled tokens are weighted means of all that was pruned.",
    ),
    Block(
        "token_reduction",
        "gsearch_psigmoid",
        ScheduledReduction,
        "Searching Optimal Vision Token Reduction, arXiv 2412.00556",
        "Text attention ranks; the share that stays falls with depth along a sigmoid, or as a search found.",
        cost="N d",
        idle=_CHOICE,
        form="Schedule from the abstract and the mean-share condition; exact parameters not verified. The searches, "
        "schedules.g_search and search.bayesian_search, are run from Python only; `rates` takes what they find. A "
        "config tells each attention stage its own layer, the middle one by default: layer: {2: 0, 1: 1}.",
        property="Shares never grow with depth, stay within their bounds and meet the budget; the search finds "
        "the least counts of a metric that is known.",
    ),
    Block(
        "token_reduction",
        "kcenter_diversity",
        KCenterDiversity,
        "ToDRE: Token Diversity and Task Relevance, arXiv 2505.18757",
        "Farthest-point selection: every distinct pattern of uptake keeps a voxel, small rare ones first.",
        cost="k N d",
        form="Greedy k-center (v1), max-sum with criterion: sum (v2); start at the highest score, else farthest from "
        "the mean (the paper's start was not found). Stage 2, a stop of the cross-attention, is not part of it.",
        property="A smaller budget keeps the first of a larger; the covering radius falls and is at most twice "
        "the best; duplicates come after all that differ; the order of the voxels does not matter.",
    ),
    Block(
        "token_reduction",
        "ia_red2",
        Interpreter,
        "IA-RED2: Interpretability-Aware Redundancy Reduction, arXiv 2106.12620",
        "A policy asks the sentence of each voxel whether it stays; the keep map is the explanation.",
        cost="N d^2",
        idle=dict.fromkeys(
            ("reduction.policy_token", "reduction.query.*", "reduction.asked.*", "voxels.text.*"),
            "The policy, drawn (estimator: reinforce), where its own loss has no weight.",
        ),
        form="Policy token = the sentence's pooled state; >= in place of >, so that its start keeps all; trained "
        "straight-through unless estimator: reinforce, whose baseline is a moving mean.",
        property="Threshold 0 keeps all; kept sets are nested over groups; dropped voxels keep their last value; "
        "the REINFORCE gradient is that of the expected reward, worked out over all maps.",
    ),
    Block(
        "token_reduction",
        "token_transition",
        TokenTransition,
        "TransPrune: Token Transition Pruning, arXiv 2507.20630",
        "The voxels that a module stretches and turns most, and that the sentence attends to, stay.",
        cost="N^2 d in time, N d in memory; N d with scores",
        idle=_CHOICE,
        form="Variation of the public code; attention without parameters stands for the module, unless scores give the "
        "variations of real ones; one step, the paper's progression is a schedule of keep.",
        property="A module that changes nothing gives all voxels the same score; stretching one by c multiplies "
        "its ratio by c; scores sum to one; with text_weight 0 the sentence has no say.",
    ),
)
