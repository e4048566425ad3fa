"""Fusions of voxels and text tokens: one explicit list. A block's class takes (channels, text_channels, **options)."""

from __future__ import annotations

from petground.models.blocks.contextual_gate import ContextualGate, NoFusion
from petground.models.blocks.contract import Block
from petground.models.blocks.fusion.deepstack import DeepStack
from petground.models.blocks.fusion.glca_pwca import GlcaPwca
from petground.models.blocks.fusion.loopback import Loopback
from petground.models.blocks.fusion.lxmert_cross import LxmertCross
from petground.models.blocks.fusion.mixed_attention import MixedAttention
from petground.models.blocks.fusion.similarity_as_points import SimilarityAsPoints
from petground.models.blocks.fusion.v2v_t2v import V2VT2V
from petground.models.blocks.fusion.vision_remember import VisionRemember

__all__ = ["BLOCKS"]

_WHEN = "What changes the tokens, at the finest fused stage: nobody reads them after it."
_LAST = {"fusion.back.*": _WHEN}
_OF_TOKENS = ("norms.h_self", "self_h", "think_h")

BLOCKS = (
    Block(
        "fusion",
        "contextual_gate",
        ContextualGate,
        "ConTEXTual Net 3D, arXiv 2502.00528",
        "Voxels query the sentence's tokens; tanh of the answer gates the features.",
        cost="N P d",
        serves=frozenset({"box"}),
        holds={"attention": "cross"},
        form="The padding mask is always passed, which the released code leaves out. The paper's weak labels take a "
        "maximum within 0.1 SUV of the printed value; this project's, one within `suv_tolerance` (0.05) of what rounds "
        "to it: the same 0.1 at one decimal, 0.055 at two, 0.55 at none.",
        property="The gate never makes a feature larger; a zero output projection gives zero, or the identity in "
        "the residual form; order and padding of the words change nothing.",
    ),
    Block(
        "fusion",
        "none",
        NoFusion,
        "",
        "No text: the plain network, as a control.",
        cost="0",
        serves=frozenset({"identity"}),
        property="Features and tokens pass unchanged.",
    ),
    Block(
        "fusion",
        "lxmert_cross",
        LxmertCross,
        "LXMERT, arXiv 1908.07490",
        "Voxels and tokens read each other at the same time, then each stream thinks for itself.",
        cost="(N P + N^2) d with N = voxels / pool^3",
        serves=frozenset({"box", "tokens", "identity"}),
        idle=_LAST | {f"fusion.layers.*.{name}.*": _WHEN for name in _OF_TOKENS},
        form="Section 2.2, with weights shared between directions as in the released code; pre-normalised, additions "
        "starting at zero, where the paper normalises after them.",
        property="Both directions read the states before, so that their order does not matter; zero output "
        "projections are the identity; shared weights are half as many.",
    ),
    Block(
        "fusion",
        "v2v_t2v",
        V2VT2V,
        "CrossLMM, arXiv 2505.17020",
        "Few pooled voxels and the tokens attend to each other, and both re-read every voxel through gates.",
        cost="((V + P)^2 + (V + P) N) d with V = cells^3",
        serves=frozenset({"box", "tokens", "identity"}),
        idle=_LAST,
        form="Dual cross-attention; V are pooled voxels of the stage, V_o all of them, T the sentence; "
        "the pooled tokens come back upsampled, as the residual gate of the stage.",
        property="Closed gates are the plain self-attention layer bit for bit; rows of both cross-attentions sum "
        "to one; the self-attention is as long on any grid.",
    ),
    Block(
        "fusion",
        "vision_remember",
        VisionRemember,
        "Vision Remember, arXiv 2506.03928",
        "Cells that asked the text re-read the encoder's and the decoder's voxels, each only its own.",
        cost="(N P / r^3 + N) d",
        serves=frozenset({"box", "skip", "identity"}),
        form="From the abstract and published summaries: local cross-attention to features of several levels, joined "
        "along the channels. Levels are the stage's skip and its upsampled features.",
        property="Fine features of other cells have no influence; a cell's shares sum to one; even scores are "
        "average pooling; cells of one voxel make it pointwise.",
    ),
    Block(
        "fusion",
        "deepstack",
        DeepStack,
        "DeepStack, arXiv 2406.04334",
        "A stack over coarse voxels and tokens gets the fine features group by group, at no greater length.",
        cost="r^3 (N / r^3 + P)^2 d",
        serves=frozenset({"box", "skip", "tokens", "identity"}),
        idle=_LAST,
        form="Section 3.2, start 1 and interval 1 as in the code; the stack is of transformer layers, not causal, "
        "the groups are a 3D space-to-depth of the stage's skip, the way back is its inverse.",
        property="The split into groups is a bijection; no layer is longer than the base; zero fine features are "
        "the base model; each group enters once, at its own layer.",
    ),
    Block(
        "fusion",
        "glca_pwca",
        GlcaPwca,
        "DCAL, arXiv 2205.02151",
        "The cells that the text's attention rolls out to look once more; another exam distracts in training.",
        cost="(V + P)^2 d with V = cells^3",
        serves=frozenset({"box", "tokens", "identity"}),
        idle=_LAST,
        form="Section 3; rollout from the sentence's tokens in place of a class token; the separate PWCA branch "
        "and loss are a share of the training batch.",
        property="The whole share is self-attention; so is a pair with itself, a hidden distractor, and "
        "evaluation, bit for bit; rows of the rollout sum to one.",
    ),
    Block(
        "fusion",
        "mixed_attention",
        MixedAttention,
        "MixFormer, arXiv 2203.11082",
        "Voxels attend to the tokens and to a thinned grid of voxels in one softmax; tokens to tokens alone.",
        cost="N (P + N / r^3) d",
        serves=frozenset({"box", "tokens", "identity"}),
        idle=_LAST,
        form="Section 3.1, asymmetric by default, scale by the full width as in the released code; templates "
        "are the sentence's tokens; no image templates, no batch norm; score prediction on request.",
        property="In the asymmetric form templates do not depend on the voxels, and kept ones give the joint "
        "answer; with identity convolutions it is attention over both streams; a score reads its region "
        "alone.",
    ),
    Block(
        "fusion",
        "loopback",
        Loopback,
        "DeRIS, arXiv 2507.01738",
        "Object queries propose lesions, the text judges which are meant, in rounds; those gate the voxels.",
        cost="K (Q N + (Q + P)^2) d",
        serves=frozenset({"box", "tokens", "identity"}),
        idle=_LAST,
        form="From the published summary: perception is one Mask2Former layer on the stage's voxels, cognition one "
        "transformer layer over tokens and queries, with shared weights in all rounds. Mismatched sentences are "
        "training's absent ones: denied by the report, of the other side, or other exams' about a place that it does "
        "not tell of; existence learns from them by its own loss, the masks by the empty target.",
        property="One round is the one-pass model; below the threshold of existence no voxel changes; the order "
        "of the queries means nothing; what existence learns to deny leaves every voxel as it is.",
    ),
    Block(
        "fusion",
        "similarity_as_points",
        SimilarityAsPoints,
        "READ, arXiv 2412.17741",
        "Where sentence and voxels are alike become prompt points, read by the gate beside the tokens.",
        cost="N (P + 30) d",
        serves=frozenset({"box", "identity"}),
        form="The released code's map, thresholds, order of points and soft coordinates in 3D; the sentence's weighted "
        "tokens in place of the <SEG> token, the gate in place of Segment Anything's decoder.",
        property="A map symmetric about a voxel has its soft point there; points stay inside the grid and their "
        "labels are a partition; a higher threshold never adds positives; a constant map has none.",
    ),
)
