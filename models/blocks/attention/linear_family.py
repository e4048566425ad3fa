"""The linear, recurrent and scored attentions: which key is which composition."""

from __future__ import annotations

from petground.models.blocks.attention.aaren import Aaren
from petground.models.blocks.attention.agent import AgentAttention
from petground.models.blocks.attention.based import Based
from petground.models.blocks.attention.kmeans_cross import KMeansCrossAttention
from petground.models.blocks.attention.linear import LinearAttention
from petground.models.blocks.attention.scored import ScoredAttention
from petground.models.blocks.attention.size_switched import SizeSwitchedAttention
from petground.models.blocks.contract import Block

__all__ = ["LINEAR_FAMILY"]

_ORDERED = frozenset({"self", "causal"})
_BOTH = frozenset({"self", "cross"})
_ALL = frozenset({"self", "cross", "causal"})

LINEAR_FAMILY = (
    Block(
        "attention",
        "aaren",
        Aaren,
        "Attention as an RNN, arXiv 2405.13956",
        "Softmax attention as a recurrence: keys in parts that merge exactly; all prefixes by a parallel scan.",
        patterns=_ALL,
        cost="N M d; causal N d log N",
        serves=frozenset({"types"}),
        idle={"attention.query": "The learned query, but in the causal pattern."},
        form="Causal is Aaren: a learned query per head, q is not read. Self and cross are its recurrence with the "
        "queries given: softmax attention by parts of the keys.",
        property="However the keys are split, the merged parts give softmax attention; the causal output at t is "
        "attention over the first t keys.",
    ),
    Block(
        "attention",
        "agent",
        AgentAttention,
        "Agent Attention, ECCV 2024, arXiv 2312.08874",
        "A few agents, the queries' means over boxes, read all keys; all queries read the agents.",
        patterns=_BOTH,
        cost="(N + M) n d, n agents",
        serves=frozenset({"types", "weights"}),
        idle=dict.fromkeys(
            ("attention.of_keys", "attention.of_queries", "attention.dwc.*"),
            "Biases and convolution, in a gate and behind a token_reduction: they need the keys' grid.",
        ),
        form="The released code's, in 3D: biases on a coarse grid, interpolated, without the row and column biases "
        "of a fixed size; 4 x 4 x 4 agents for 7 x 7.",
        property="The map through n agents is not negative, its rows sum to one and its rank is at most n; one "
        "agent answers every query alike; a convolution that passes values through adds them.",
    ),
    Block(
        "attention",
        "kmeans_cross",
        KMeansCrossAttention,
        "kMaX-DeepLab, ECCV 2022, arXiv 2207.04044",
        "Cross-attention as a step of k-means: every key's value goes to its best query.",
        patterns=_BOTH,
        cost="N M d",
        serves=frozenset({"bias", "weights"}),
        form="The k-means update without the residual, which the caller adds, on each head; q and k get their "
        "gradient from `scores`, supervised as masks.",
        idle=dict.fromkeys(
            ("fusion.norm.*", "fusion.position.*", "fusion.query.*", "fusion.key.*"),
            "What makes q and k, where they share no layer with v (a gate's): the assignment has no gradient.",
        ),
        property="Each key's value goes whole to one query, so that the outputs sum to the sum of all values; "
        "only the order of a key's scores matters, and queries taken out receive nothing.",
    ),
    Block(
        "attention",
        "lightning_attention",
        LinearAttention,
        "Various Lengths, Constant Speed (Lightning Attention), ICML 2024, arXiv 2405.17381",
        "Linear attention with a decay for each head, exact in chunks with a running state.",
        preset={"key": "lightning_attention", "loss_weight": 0.0, "decay": "heads", "feature_dim": 0},
        patterns=_ORDERED,
        cost="N c d + N d^2, c the chunk",
        form="silu on q, k and v as the released module; decay_scale is its factor of the layer, 1 - layer / "
        "(layers - 1). Differs: the paper's decays exp(-8 h / H) (the module has lightning2's); SRMSNorm of each head, "
        "where the paper has it, and the module LayerNorm, over all heads (normalize: rms_all); no gate on the answer, "
        "no LRPE. Both directions are our extension. The kernel `linear_attention_carried` carries a state, not the "
        "block.",
        property="For any chunk size equal to the masked product written out; a sequence in pieces whose state is "
        "carried gives what one pass does; with decay_scale 0 it is plain linear attention; nothing of N x N is held.",
    ),
    Block(
        "attention",
        "lightning2",
        LinearAttention,
        "Lightning Attention-2, arXiv 2401.04658",
        "The same tiling with the slopes of its released code: products inside a chunk, a state between chunks.",
        preset={"key": "lightning2", "loss_weight": 0.0, "decay": "slopes", "feature_dim": 0},
        patterns=_ORDERED,
        cost="N c d + N d^2, c the chunk",
        form="Decays exp(-2^(-8 h / H)), h = 1..H, as in the released code where H is a power of two (else it puts two "
        "series together); the rest is lightning_attention's.",
        property="For any chunk size equal to the masked product written out, with the published slopes; with "
        "decay_scale 0 it is plain linear attention; nothing of N x N is held.",
    ),
    Block(
        "attention",
        "based",
        Based,
        "Based, ICML 2024, arXiv 2402.18668",
        "A second-order Taylor linear attention over everything beside an exact softmax in a window.",
        patterns=_ORDERED,
        cost="N d d'^2 + N w d",
        serves=frozenset({"types", "weights"}),
        form="The paper's two layers in turn stand side by side in one block, shared by a learned number per head.",
        property="The features multiply to 1 + s + s^2 / 2, at least 1/2, so that all shares are positive and sum"
        " to one; the window is exact softmax near by.",
    ),
    Block(
        "attention",
        "hedgehog",
        LinearAttention,
        "The Hedgehog & the Porcupine, ICLR 2024, arXiv 2402.04347",
        "Linear attention with learned spiky features, to be distilled from a softmax map.",
        preset={
            "key": "hedgehog",
            "feature_map": "hedgehog",
            "value_map": "identity",
            "normalize": "sum",
            "decay": "none",
            "decay_scale": 1.0,
            "feature_dim": 0,
        },
        patterns=_ALL,
        cost="N d^2",
        serves=frozenset({"types", "weights"}),
        form="exp(W x + b) and exp(-W x - b) over their sum; the distillation is its own loss in training.",
        property="Shares are positive and sum to one, and the evaluation by a state equals the map written out; "
        "the distillation loss is least, the teacher's entropy, for the teacher's own map.",
    ),
    Block(
        "attention",
        "softplus_reweight",
        ScoredAttention,
        "Softplus Attention with Re-weighting, arXiv 2501.13428",
        "softplus in place of exp, scaled with log n, and large shares raised by a power.",
        preset={
            "key": "softplus_reweight",
            "score": "dot",
            "normaliser": "softplus",
            "temperature": "length",
        },
        patterns=_ALL,
        cost="N M d",
        serves=frozenset({"bias", "weights"}),
        form="softplus(f log d log n q k / sqrt(d)) over its sum, then relu(n a - offset)^power over its sum; f, "
        "offset and power were not checked against the paper and are options. power 1 and offset 0 is LSSA.",
        property="Shares are not negative, sum to one and stay finite for scores of 10^4 in bfloat16; re-"
        "weighting keeps their order and never lowers the largest; a query that sees no key gets zero.",
    ),
    Block(
        "attention",
        "selective_temperature",
        ScoredAttention,
        "Selective Attention, NeurIPS 2024, arXiv 2411.12892",
        "Softmax whose temperature each query sets, and which grows sharper with the number of keys.",
        preset={
            "key": "selective_temperature",
            "score": "dot",
            "normaliser": "softmax",
            "temperature": "selective",
            "power": 1.0,
            "offset": 0.0,
            "length_factor": 1.0,
        },
        patterns=_ALL,
        cost="N M d",
        serves=frozenset({"bias", "types", "weights"}),
        form="Position term as in the released code; the token terms, tanh of a linear function of q (of v for the "
        "values), are from the description: the code released has none.",
        property="With its learned terms at zero it is softmax attention; temperature keeps the order of a row's "
        "shares, and a sharper one has less entropy; with a single key the position term changes "
        "nothing.",
    ),
    Block(
        "attention",
        "pointer",
        ScoredAttention,
        "Pointer Networks, NeurIPS 2015, arXiv 1506.03134",
        "Additive scores and their softmax over any number of candidates: the map is the answer.",
        preset={
            "key": "pointer",
            "score": "additive",
            "normaliser": "softmax",
            "temperature": "fixed",
            "power": 1.0,
            "offset": 0.0,
            "length_factor": 1.0,
        },
        patterns=_ALL,
        cost="N M d",
        serves=frozenset({"bias", "types", "weights"}),
        form="Equation 3 on each head; ask for the map to have the distribution. The values' mean is given, too, since "
        "every block of this slot gives one.",
        property="The shares are a distribution over any number of candidates and move with them when they are "
        "reordered; masked candidates get exactly none.",
    ),
    Block(
        "attention",
        "size_switched",
        SizeSwitchedAttention,
        "Modality Agnostic Efficient Long Range Encoder (MAELRE), arXiv 2507.19409",
        "Exact softmax for few keys, Efficient Attention with a state of d^2 for many.",
        patterns=_BOTH,
        cost="N d^2 for many keys, N M d for at most d",
        serves=frozenset({"weights"}),
        form="The approximation of the paper was not found; Efficient Attention (arXiv 1812.01243) stands for it. "
        "Its merging between levels is left to a token_reduction before it, such as aim_merge_prune, whose merge sizes "
        "sum to N.",
        property="Up to `width` keys it is PyTorch's softmax attention bit for bit; above, shares are not "
        "negative, sum to one and no N x N is held. Only the number of keys decides.",
    ),
)
