"""The sparse, routed and head-weighting attention blocks: which key is which composition, from which paper."""

from __future__ import annotations

from petground.models.blocks.attention.headwise import HeadwiseAttention
from petground.models.blocks.attention.landmark import LandmarkAttention
from petground.models.blocks.attention.routing import RoutingAttention
from petground.models.blocks.attention.sparsifiner import SparsifinerAttention
from petground.models.blocks.attention.summaries import SummaryAttention
from petground.models.blocks.contract import Block

__all__ = ["SPARSE"]

SELF, WEIGHTS = frozenset({"self"}), frozenset({"weights"})
SELF_CAUSAL = frozenset({"self", "causal"})
NO_GATES = {"gated": False, "shared_heads": None, "active_heads": None, "rescale": False}
NO_SINKS = {"window_attention": "sinks: 0"}
NO_SPANS = {"sinks": 0, "span": 0, "radius": 0, "growth": 0.0, "unit": "voxel", "full_heads": None, "backend": "auto"}

SPARSE = (
    Block(
        "attention",
        "duo",
        HeadwiseAttention,
        "DuoAttention, arXiv 2410.10819",
        "Each head mixes full attention with a stream of sinks and near tokens, or is decided to do one of the two.",
        preset={"name": "duo", "reach": "mixed", "growth": 0.0, **NO_GATES},
        patterns=SELF_CAUSAL,
        kernels_need=NO_SINKS,
        cost="N N d while mixing; full heads N N d, the others N (sinks + span) d",
        serves=WEIGHTS | {"types"},
        form="Section 3. The recent window of the paper is `span` tokens before the query (causal), to both sides in "
        "an order without a grid, and the box of `radius` around the query in a grid; sinks are the first tokens. The "
        "task's loss stands for the distillation, sum |a| is its own in training. After it the heads are decided from "
        "Python only, by `full_heads_at`; `full_heads` takes them.",
        property="It starts as full attention; where the span covers everything the shares of the heads do not "
        "matter; decided heads equal the mixture at zeros and ones.",
    ),
    Block(
        "attention",
        "moa_spans",
        HeadwiseAttention,
        "MoA: Mixture of (Sparse) Attention Spans, arXiv 2406.14909",
        "A span for each head, a constant plus a share of the length, and sinks.",
        preset={"name": "moa_spans", "reach": "spans", "full_heads": None, "loss_weight": 0.0, **NO_GATES},
        patterns=SELF_CAUSAL,
        kernels_need=NO_SINKS,
        cost="sum over heads of N S_h(N) d",
        serves=WEIGHTS,
        form="Section 4.1, S_h(N) = alpha_h + beta_h N: `span` and `growth` in an order, a box of radius `radius` + "
        "`growth` sides in a grid. Profile and search, span_profile.choose_spans, are run from Python only; `span`, "
        "`radius` and `growth` take what they find.",
        property="A span over everything is full attention; each head sees its own box, in mm where asked; the "
        "profile equals the change of the map with the key masked; chosen spans are the best within the "
        "budget.",
    ),
    Block(
        "attention",
        "moh",
        HeadwiseAttention,
        "MoH: Multi-Head Attention as Mixture-of-Head Attention, arXiv 2410.11842",
        "Each token picks its heads: shared ones always, of the routed ones the best few.",
        preset={"name": "moh", "reach": "full", "gated": True, **NO_SPANS},
        patterns=frozenset({"self", "cross", "causal"}),
        cost="N M d (heads not picked are computed and left out, as in the authors' code)",
        serves=frozenset({"bias", "weights"}),
        form="Section 3.3; the router reads the token's query, all heads together, which is the token up to the linear "
        "map before it. The balance loss, its own in training, is over each sentence's tokens.",
        property="With all gates at one it is multi-head attention; what reads a head that was not picked gets no"
        " gradient; even routing has the balance loss of its formula.",
    ),
    Block(
        "attention",
        "combiner",
        SummaryAttention,
        "Combiner: Full Attention Transformer with Sparse Computation Cost, arXiv 2107.05768",
        "The own block's tokens and a summary of each other block, in one softmax: every token keeps some weight.",
        preset={"name": "combiner", "core": False, "near": None, "near_tokens": None, "near_mm": None},
        patterns=SELF_CAUSAL,
        cost="N sqrt(N) d",
        serves=WEIGHTS,
        form="Combiner-Fixed; an axial partition by `block`, e.g. [1, 0, 0] for axial slices. The own block's "
        "summary is left out, as the factorisation says; the authors' bidirectional code counts it besides. Blocks at "
        "the grid's end are smaller.",
        property="Every token has a positive share and each row sums to one, also with blocks of unequal size; "
        "one block over the grid is softmax attention; memory grows as N^1.5.",
    ),
    Block(
        "attention",
        "core_context",
        SummaryAttention,
        "Core Context Aware Transformers (CCA-Attention), arXiv 2412.12465",
        "Near tokens as they are, every far group as one core token, in one softmax.",
        preset={"name": "core_context", "core": True, "pooling": "mean"},
        patterns=SELF_CAUSAL,
        cost="N (N / g + s) d",
        serves=WEIGHTS,
        form="ICML form and the authors' code: one softmax over core and near tokens, a group being one or the other "
        "(version 1 of the paper mixes two outputs). Near means whole groups, also in a grid; a volume has no last "
        "token, so the mean query of a group weighs its tokens there.",
        property="Groups of one voxel, or a neighbourhood over the grid, give softmax attention; a core token "
        "lies among its group and is its mean where nothing stands out; rows sum to one.",
    ),
    Block(
        "attention",
        "landmark",
        LandmarkAttention,
        "Random-Access Infinite Context Length for Transformers (Landmark Attention), arXiv 2305.16300",
        "Landmarks of blocks compete with the own block's tokens and gate the tokens of the blocks fetched.",
        patterns=SELF_CAUSAL,
        cost="N (N / L + (k + 1) L) d",
        serves=WEIGHTS | {"types"},
        idle={"attention.reader": "The landmarks' query, where one block holds all voxels."},
        form="Section 3. No landmark tokens run along with the voxels: a block's landmark key is what a learned query "
        "reads from its keys. Blocks of a grid are boxes.",
        property="Rows sum to one; within a block shares stand as exp of the scores; fetching all blocks is the "
        "grouped softmax written out; blocks that swap places swap their shares.",
    ),
    Block(
        "attention",
        "routing",
        RoutingAttention,
        "Efficient Content-Based Sparse Attention with Routing Transformers, arXiv 2003.05997",
        "Tokens of like content attend within clusters of spherical k-means; other heads are local.",
        patterns=SELF,
        cost="N (N / clusters) d, memory N d; N^1.5 d with about sqrt(N) clusters",
        serves=WEIGHTS,
        form="Algorithm 1, noncausal: queries and keys are picked apart. Answers of several clusters are averaged. Not "
        "causal: a later token can displace an earlier one from a cluster. 32 clusters whatever N (time N^2 d / 32): "
        "their centroids are kept with the weights. Set about sqrt(N) for the paper's N^1.5 d.",
        property="One cluster over everything is attention on normalised q and k; no token sees outside its "
        "clusters; centroids keep length one, and with decay 1 stay.",
    ),
    Block(
        "attention",
        "sparsifiner",
        SparsifinerAttention,
        "Sparsifiner: Learning Sparse Instance-Dependent Attention for Efficient Vision Transformers, arXiv 2303.13755",
        "A low-rank guess of the attention picks the keys of each query; exact softmax over those.",
        patterns=SELF,
        cost="N N n_down for the guess, N k d for the attention",
        serves=WEIGHTS,
        idle=dict.fromkeys(
            ("attention.down", "attention.up", "attention.to_query.*", "attention.to_key.*"),
            "The predictor, where its own loss has no weight: it learns from that alone.",
        ),
        form="Sections 3.2 and 3.3 and the authors' code, the top-k budget as a number of keys. The bases are learned "
        "on a small lattice and resized to the grid, as exams differ in size. The dense teacher of its own loss is the "
        "softmax of the block's own q and k; the paper's weight of it was not found.",
        property="Keeping every key is softmax attention; else each row has exactly `keep` shares that sum to "
        "one, on the best guessed keys; the others' values have no gradient; images have masks of their "
        "own.",
    ),
)
