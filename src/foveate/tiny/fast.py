"""A forward pass for training that equals the stock one: questions share their page."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 192
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Batch:
    """Rows of equal shape: pages as a prefix, and bins of tokens that see prefix and own block."""

    patches: Tensor  # [B, pages, HW, 768]
    grid: tuple[int, int]
    prefix: Tensor  # [P] token ids, the same for every row
    tokens: Tensor  # [B, n, w]
    positions: Tensor  # [B, n, w]
    blocks: Tensor  # [B, n, w] number of the block within its bin, -1 where empty
    weights: Tensor  # [B, n, w] of the loss on the next token
    answers: Tensor  # [B, n, w] number of the answer that the next token belongs to, -1 for none
    skills: tuple[str, ...]  # of every answer


def rms_norm(x: Tensor, norm: Any) -> Tensor:
    """Root-mean-square norm with the module's weight, statistics in float32."""
    return F.rms_norm(x, x.shape[-1:], norm.weight, norm.variance_epsilon)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding with tables from `signed`, which broadcast over heads."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((x[..., half:], x[..., :half]), dim=-1) * sin


def signed(cos: Tensor, sin: Tensor) -> Pair:
    """Cosines as they are, sines with their first half negated, as `rotate` wants them."""
    half = sin.shape[-1] // 2
    return cos, torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)


def page_positions(grid: tuple[int, int], pages: int) -> tuple[Tensor, int]:
    """M-RoPE positions of the prefix [3, P] and the position after it."""
    height, width = grid
    cells = torch.stack(
        [
            torch.zeros(height * width, dtype=torch.long),
            torch.arange(height).repeat_interleave(width),
            torch.arange(width).repeat(height),
        ]
    )
    parts, at = [], 0
    for _ in range(pages):
        parts += [torch.full((3, 1), at), cells + at + 1, torch.full((3, 1), at + 1 + max(grid))]
        at += 2 + max(grid)
    return torch.cat(parts, dim=1), at


def vision_rope(grid: tuple[int, int], width: int, device: torch.device) -> Pair:
    """Cosines and sines of the vision tower's two axes, [HW, width]."""
    inverse = 1.0 / 10000.0 ** (
        torch.arange(0, width // 2, 2, device=device, dtype=torch.float) / (width // 2)
    )
    rows = torch.arange(grid[0], device=device).repeat_interleave(grid[1])
    columns = torch.arange(grid[1], device=device).repeat(grid[0])
    angles = torch.cat([rows[:, None] * inverse, columns[:, None] * inverse], dim=-1)
    angles = torch.cat([angles, angles], dim=-1)
    return signed(angles.cos(), angles.sin())


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention of flat batches [N, Q, D] x [N, L, D]; q comes scaled."""
    scores = torch.bmm(q, k.mT) if mask is None else torch.baddbmm(mask, q, k.mT)
    return torch.bmm(scores.softmax(dim=-1), v)


def vision_block(block: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """One layer of the vision tower over [N, HW, C]."""
    batch, cells, width = x.shape
    heads = block.attn.num_heads
    qkv = block.attn.qkv(block.norm1(x)).view(batch, cells, 3, heads, -1)
    q, k = rotate(qkv[:, :, :2], cos[:, None, None], sin[:, None, None]).unbind(2)
    q, k, v = (
        t.transpose(1, 2).reshape(batch * heads, cells, -1)
        for t in (q * block.attn.scaling, k, qkv[:, :, 2])
    )
    out = attend(q, k, v).view(batch, heads, cells, -1).transpose(1, 2).reshape(batch, cells, width)
    x = x + block.attn.proj(out)
    return x + block.mlp(block.norm2(x))


def see(visual: Any, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """Visual tokens and their deep-stack features, each [B, pages, HW, C]."""
    rows, pages, cells, _ = batch.patches.shape
    weight = visual.patch_embed.proj.weight.sum(dim=2).flatten(1)
    x = F.linear(batch.patches.flatten(0, 1).to(weight.dtype), weight, visual.patch_embed.proj.bias)
    width = x.shape[-1] // visual.blocks[0].attn.num_heads
    cos, sin = (t.to(x.dtype) for t in vision_rope(batch.grid, width, x.device))
    deep = []
    for index, block in enumerate(visual.blocks):
        x = vision_block(block, x, cos, sin)
        if index in visual.deepstack_visual_indexes:
            deep.append(
                visual.deepstack_merger_list[visual.deepstack_visual_indexes.index(index)](x)
            )
    return visual.merger(x).view(rows, pages, cells, -1), [
        d.view(rows, pages, cells, -1) for d in deep
    ]


class Segment:
    """Rotary tables and masks of prefix and bins, computed once per batch."""

    def __init__(self, text: Any, batch: Batch, dtype: torch.dtype):
        device = batch.tokens.device
        prefix, after = page_positions(batch.grid, batch.patches.shape[1])
        probe = torch.zeros(1, dtype=dtype, device=device)
        bins = (batch.positions + after).flatten(1)
        self.prefix = self._tables(text, probe, prefix[:, None].to(device))
        self.bins = self._tables(text, probe, bins[None].expand(3, -1, -1))
        length, width = prefix.shape[1], batch.tokens.shape[2]
        self.count = batch.tokens.shape[1]
        groups = text.config.num_attention_heads // text.config.num_key_value_heads
        far = torch.full((length, length), -1e4, dtype=dtype, device=device).triu(1)
        self.causal = far
        same = (batch.blocks[..., :, None] == batch.blocks[..., None, :]) & torch.ones(
            width, width, dtype=torch.bool, device=device
        ).tril()
        local = torch.zeros(same.shape, dtype=dtype, device=device).masked_fill(~same, -1e4)
        heads = text.config.num_key_value_heads
        self.local = (
            local[:, None, :, None]
            .expand(-1, heads, -1, groups, -1, -1)
            .reshape(-1, groups * width, width)
        )

    @staticmethod
    def _tables(text: Any, probe: Tensor, positions: Tensor) -> Pair:
        cos, sin = signed(*text.rotary_emb(probe, positions))
        return cos[:, :, None], sin[:, :, None]


def project(attention: Any, x: Tensor, rope: Pair) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [B, L, Hq, D] scaled and rotated, keys rotated, values [B, L, H, D]."""
    shape = (*x.shape[:2], -1, attention.head_dim)
    q = (
        rotate(rms_norm(attention.q_proj(x).view(shape), attention.q_norm), *rope)
        * attention.scaling
    )
    k = rotate(rms_norm(attention.k_proj(x).view(shape), attention.k_norm), *rope)
    return q, k, attention.v_proj(x).view(shape)


def prefix_attention(q: Tensor, k: Tensor, v: Tensor, causal: Tensor) -> Tensor:
    """Causal attention within the prefix, [B, P, Hq * D]; k and v are [B * H, P, D]."""
    batch, length, heads, width = q.shape
    if q.is_cuda:
        near, far = (t.view(batch, -1, length, width) for t in (k, v))
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2), near, far, is_causal=True, scale=1.0, enable_gqa=True
        )
        return out.transpose(1, 2).reshape(batch, length, -1)
    q = q.transpose(1, 2).reshape(len(k), -1, length, width)
    groups, parts = q.shape[1], []
    for start in range(0, length, CHUNK):
        end = min(start + CHUNK, length)
        some = q[:, :, start:end].reshape(len(k), -1, width)
        mask = causal[start:end, :end].repeat(groups, 1)
        parts.append(attend(some, k[:, :end], v[:, :end], mask).view(len(k), groups, -1, width))
    out = torch.cat(parts, dim=2).view(batch, heads, length, width)
    return out.transpose(1, 2).reshape(batch, length, -1)


def bin_attention(q: Tensor, own: Pair, page: Pair, segment: Segment) -> Tensor:
    """Attention of the bins to the prefix and causally to their own block, [B, n * w, Hq * D]."""
    batch, length, heads, width = q.shape
    kv_heads = own[0].shape[2]
    groups, bins = heads // kv_heads, segment.count
    span = length // bins
    q = q.view(batch, bins, span, kv_heads, groups, width).permute(0, 3, 1, 4, 2, 5).contiguous()
    far = torch.bmm(q.view(batch * kv_heads, -1, width), page[0].mT)
    k, v = (
        t.view(batch, bins, span, kv_heads, width).permute(0, 3, 1, 2, 4).reshape(-1, span, width)
        for t in own
    )
    near = torch.baddbmm(segment.local, q.view(-1, groups * span, width), k.mT)
    seen = far.shape[-1]
    weights = torch.cat([far.view(-1, seen), near.view(-1, span)], dim=-1).softmax(dim=-1)
    far, near = weights.split([seen, span], dim=-1)
    out = torch.bmm(far.reshape(batch * kv_heads, -1, seen), page[1]).view(-1, groups * span, width)
    out = out + torch.bmm(near.reshape(-1, groups * span, span), v)
    out = out.view(batch, kv_heads, bins, groups, span, width).permute(0, 2, 4, 1, 3, 5)
    return out.reshape(batch, length, heads * width)


def feed_forward(layer: Any, x: Tensor) -> Tensor:
    """The residual SwiGLU part of a layer."""
    h = rms_norm(x, layer.post_attention_layernorm)
    return x + layer.mlp.down_proj(F.silu(layer.mlp.gate_proj(h)) * layer.mlp.up_proj(h))


def logits(model: Any, batch: Batch) -> Tensor:
    """Next-token logits at every bin position, [B, n, w, vocabulary]."""
    return F.linear(states(model, batch), model.lm_head.weight)


def states(model: Any, batch: Batch) -> Tensor:
    """Last hidden states at every bin position, [B, n, w, C]."""
    text = model.model.language_model
    seen, deep = see(model.model.visual, batch)
    rows, pages, cells, _ = seen.shape
    marks = text.embed_tokens(batch.prefix).view(pages, cells + 2, -1).expand(rows, -1, -1, -1)
    x = torch.cat([marks[:, :, :1], seen, marks[:, :, -1:]], dim=2).flatten(1, 2)
    y = text.embed_tokens(batch.tokens.flatten(1))
    segment = Segment(text, batch, y.dtype)
    for index, layer in enumerate(text.layers):
        attention, project_out = layer.self_attn, layer.self_attn.o_proj
        q, k, v = project(attention, rms_norm(x, layer.input_layernorm), segment.prefix)
        page = (k.transpose(1, 2).flatten(0, 1), v.transpose(1, 2).flatten(0, 1))
        asked, *own = project(attention, rms_norm(y, layer.input_layernorm), segment.bins)
        y = y + project_out(bin_attention(asked, (own[0], own[1]), page, segment))
        y = feed_forward(layer, y)
        if index == len(text.layers) - 1:
            break
        x = feed_forward(layer, x + project_out(prefix_attention(q, *page, segment.causal)))
        if index < len(deep):
            x = x + F.pad(deep[index], (0, 0, 1, 1)).flatten(1, 2)
    y = rms_norm(y, text.norm)
    return y.view(*batch.tokens.shape, -1)


def loss(outputs: Tensor, batch: Batch) -> Tensor:
    """Weighted mean cross-entropy of the next tokens."""
    targets = batch.tokens.roll(-1, dims=2)
    each = F.cross_entropy(outputs.flatten(0, 2).float(), targets.flatten(), reduction="none")
    weights = batch.weights.flatten()
    return (each * weights).sum() / weights.sum().clamp(min=1.0)


def ahead(states: Tensor, heads: Iterable[Any], table: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy of the answer's tokens two and more places ahead, one head a distance.

    Multi-token prediction: it makes the model look at a whole answer before it says the first
    letter, as large models do; the heads are thrown away after training.
    """
    losses, count = [states.sum() * 0.0], 0
    for distance, head in enumerate(heads, start=2):
        there = (batch.answers.roll(1 - distance, dims=2) == batch.answers) & (batch.answers >= 0)
        there[..., 1 - distance :] = False
        where = there.nonzero(as_tuple=True)
        outputs = F.linear(head(states[where]), table).float()
        targets = batch.tokens.roll(-distance, dims=2)[where]
        losses.append(F.cross_entropy(outputs, targets, reduction="sum"))
        count += len(targets)
    return torch.stack(losses).sum() / max(count, 1)


def exact(outputs: Tensor, batch: Batch) -> Tensor:
    """For every answer, whether greedy decoding gives it exactly, bool [answers]."""
    wrong = (outputs.argmax(dim=-1) != batch.tokens.roll(-1, dims=2)) & (batch.answers >= 0)
    misses = torch.zeros(len(batch.skills), device=wrong.device).index_add_(
        0, batch.answers.clamp(min=0).flatten(), wrong.flatten().float()
    )
    return misses == 0


def to(batch: Batch, device: str) -> Batch:
    """The batch on another device."""
    fields = vars(batch).items()
    moved: dict[str, Any] = {name: v.to(device) for name, v in fields if isinstance(v, Tensor)}
    return replace(batch, **moved)
