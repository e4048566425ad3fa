"""The list of those that merge, gather into latents, route by depth or exit; `ranking` has those that rank."""

from __future__ import annotations

from petground.models.blocks.contract import Block
from petground.models.blocks.token_reduction.aim import MergePrune
from petground.models.blocks.token_reduction.depth import MixtureOfDepths
from petground.models.blocks.token_reduction.exits import EarlyExit
from petground.models.blocks.token_reduction.lookup import Lookup
from petground.models.blocks.token_reduction.recover import RecoverableCompression
from petground.models.blocks.token_reduction.resampler import SimilarityResampler
from petground.models.blocks.token_reduction.sparseformer import SparseFormer
from petground.models.blocks.token_reduction.tubes import PerturbedTubes

__all__ = ["CONDENSED"]

_CHOICE = {"voxels.text.*": "The map of the sentence to the voxels' width: it serves a choice that has no gradient."}

CONDENSED = (
    Block(
        "token_reduction",
        "aim_merge_prune",
        MergePrune,
        "AIM: Adaptive Inference of Multi-Modal LLMs via Token Merging and Pruning, arXiv 2412.03248",
        "Halves the voxels by merging like pairs, then prunes those of low PageRank in the graph with the text.",
        cost="N^2 d / 4 + iterations K^2 d, K tokens left",
        idle=_CHOICE,
        form="Merging as in the released code (even places join odd ones), means weighted by size (sizes: false is the "
        "code's); what stays keeps its order. The graph is that of the normalised tokens and the sentence's, without "
        "links to themselves, since no language model's maps exist here. split: grid is token merging for diffusion.",
        property="Merging with sizes keeps the global mean and constants; no merging is the identity; equal "
        "tokens of opposite parity go first; PageRank sums to one and is even on an even map.",
    ),
    Block(
        "token_reduction",
        "recoverable_compression",
        RecoverableCompression,
        "Recoverable Compression: Vision Token Recovery Guided by Text Information, arXiv 2409.01179",
        "Voxels of outlying score stay, those of outlying likeness to the sentence come back, the rest: cluster means.",
        cost="N k + S^2 d + N clusters d, S sampled voxels",
        idle=_CHOICE,
        form="From the paper's description, without its code: local outlier factor on the scores, DPC-KNN for the "
        "remainder. The vision class token becomes `scores` (SUV), or 1 - cosine to the mean voxel.",
        property="Kept, recovered and merged voxels are a partition; kept ones come back as they are, merged ones"
        " as their mean; voxels along the sentence always come back; equal scores do no harm.",
    ),
    Block(
        "token_reduction",
        "lookup",
        Lookup,
        "LookupViT: Compressing Visual Information to a Limited Number of Tokens, arXiv 2407.12753",
        "Tokens on a coarse grid gather from all voxels and hand back through the same scores, transposed.",
        cost="N M d",
        form="The un-merge is A^T v, A normalised over the voxels; heads averaged. Self-attention on the compressed "
        "tokens is the attention block that follows; the lookup tokens' MLP has no place.",
        property="What voxels get from each other passes through the M tokens alone; values go back by the same "
        "scores transposed; the same weights serve another M; memory is linear in N.",
    ),
    Block(
        "token_reduction",
        "p_mod",
        MixtureOfDepths,
        "p-MoD: Building Mixture-of-Depths MLLMs via Progressive Ratio Decay, arXiv 2412.04449",
        "A router sends fewer voxels the deeper the layer; weights 0.2 tanh + 1 on the routed and on the others.",
        preset={"key": "p_mod", "weight": "tanh", "schedule": "cosine", "capacity": 1.0},
        cost="N d + layer(R N)",
        form="Released code: R = max(0.15, cos(pi l / (L - 1)) / 2 + 1/2), dense above 0.85. There the weight of the "
        "routed is on the MLP; here on what the one attention adds. A config tells each attention stage its own "
        "layer: layer: {2: 1, 1: 2}.",
        property="With the router at its start skipped voxels pass bit for bit, and a dense layer is the layer "
        "without it; shares fall with depth to their floor; the choice goes with the voxels.",
    ),
    Block(
        "token_reduction",
        "gamma_mod",
        MixtureOfDepths,
        "gamma-MoD: Exploring Mixture-of-Depth Adaptation for Multimodal LLMs, arXiv 2410.13859",
        "A two-way router sends a fixed share of the voxels through the layer, weighted by its probability.",
        preset={
            "key": "gamma_mod",
            "weight": "probability",
            "schedule": "constant",
            "layer": 0,
            "layers": 1,
            "lowest": 1.0,
            "dense_above": 1.0,
            "scale": 0.0,
        },
        cost="N d + layer(R N)",
        form="y = x + w T(x) as in the paper (the released code puts w on the MLP alone). Text is never routed. Which "
        "layers to route the paper tells by ARank: depth.attention_rank, from Python only.",
        property="Skipped voxels pass bit for bit; all routed with weight one is the dense layer; the rank of an "
        "even map is 1, of an identity N; the sentence is never routed.",
    ),
    Block(
        "token_reduction",
        "perturbed_topk_tubes",
        PerturbedTubes,
        "StimuVAR: Spatiotemporal Stimuli-aware Video Affective Reasoning, arXiv 2408.16990",
        "The sub-volumes of highest predicted score, chosen by a differentiable top-k while training.",
        cost="N d^2 + samples T log T, T tubes",
        form="Frames are axial slices, optical flow is the axial profile of `scores`. A tube also ends at its end. "
        "In evaluation overlapping tubes share their voxels; in training `kept` is -1 and overlaps are averaged.",
        property="Indicators sum to one and sharpen to the top-k without noise; scores learn through the choice; "
        "evaluation keeps the tubes of highest mean score; all tubes give every voxel back.",
    ),
    Block(
        "token_reduction",
        "dyn_perceiver",
        EarlyExit,
        "Dynamic Perceiver for Efficient Visual Recognition, arXiv 2306.11248",
        "A latent code and the voxels look at each other; a sure 'absent' on the code sends the voxels away.",
        preset={"key": "dyn_perceiver", "criterion": "confidence", "code": "latents", "hidden": 1},
        cost="layers (N d^2 + N M d)",
        idle={
            "reduction.judges.*": "The judges, which a loss of their own trains, where it has a weight.",
            "reduction.words.*": "The map of the sentence to the code, in stages without text.",
        },
        form="Exits on the latent branch only, with the code started from the sentence. It leaves when surely absent, "
        "not with any sure class, since a present finding needs its mask. Convolutional stages lie around the block.",
        property="A threshold above 1 is the full stack, the lowest leaves at once, and depth grows with it; an "
        "exit does not depend on later layers; who leaves changes nothing for others.",
    ),
    Block(
        "token_reduction",
        "dyvte_exit",
        EarlyExit,
        "Accelerating MLLMs via Dynamic Visual-Token Exit, arXiv 2411.19628",
        "A router on the sentence's states sends all voxels away once they hold enough of the image.",
        preset={"key": "dyvte_exit", "criterion": "router", "code": "text", "latents": 1, "loss_weight": 0.0},
        cost="layers (N d^2 + N P d)",
        serves=frozenset({"text"}),
        idle={"reduction.judges.*": "The routers: their paper trains them apart, on a frozen network."},
        form="The router of the released code on [mean ; last text state], detached. The layers are a small stack of "
        "the block's own, since a decoder stage has one. `petground train` does not train the routers, which untrained "
        "let all stay; their training, with exits.exit_label, is from Python only.",
        property="A threshold above 1 is the full stack bit for bit, and depth grows with it; after the exit the "
        "sentence does not see the voxels; the routers alone learn from their loss.",
    ),
    Block(
        "token_reduction",
        "mue_exit",
        EarlyExit,
        "You Need Multiple Exiting (MuE), arXiv 2211.11152",
        "Voxels and sentence each stop when a layer changes them little: cos(x_l, x_{l-1}) above a threshold.",
        preset={
            "key": "mue_exit",
            "criterion": "saturation",
            "code": "text",
            "latents": 1,
            "hidden": 1,
            "loss_weight": 0.0,
        },
        cost="layers (N d^2 + N P d)",
        serves=frozenset({"text"}),
        form="Mean cosine over a stream's tokens, one threshold for both streams; the layers are a small stack of the "
        "block's own. No loss on each layer, so nobody leaves by default: set a threshold below 1 for a trained model. "
        "The sentence's exit is told alone: the voxels read what goes on.",
        property="A threshold above 1 is the full stack bit for bit, the lowest leaves after the least layer, and"
        " depth grows with it; voxels and sentence stop each at its own depth.",
    ),
    Block(
        "token_reduction",
        "similarity_resampler",
        SimilarityResampler,
        "TextMonkey: An OCR-Free Large Multimodal Model for Understanding Document, arXiv 2403.04473",
        "The voxels least like any other stay and gather from all; shifted windows link them, adding nothing at first.",
        cost="N^2 d",
        form="importance = 1 - max cosine over all others (against: later is the released code). With a residual and a "
        "zero start. Dropped voxels get the softmax of the same scores over the kept ones.",
        property="A share of 1 keeps all; of two equal voxels both count nothing and leave first; each kept voxel"
        " reads all, with shares that sum to one; the branch starts at zero.",
    ),
    Block(
        "token_reduction",
        "sparseformer_roi",
        SparseFormer,
        "Bootstrapping SparseFormers from Vision Foundation Models, arXiv 2312.01987",
        "A few dozen tokens whose boxes move over the volume, sample it and stand for it.",
        cost="repeats L (P d^2 + L d) + N L d, L tokens of P samples",
        idle={"reduction.words.*": "The map of the sentence to the tokens, in stages without text."},
        form="Released code in three dimensions: trilinear samples, offsets over three standard deviations, adaptive "
        "mixing. The un-merge is ours: attention of voxels to tokens with a Gaussian of each box.",
        property="No adjustment leaves the boxes; sampling at a voxel's centre is reading it; offsets have no "
        "scale; boxes move with the volume; the number of tokens does not grow with it.",
    ),
)
