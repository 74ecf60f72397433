"""The training forward pass gives the stock model's logits and gradients."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from foveate.tiny import architecture, fast
from foveate.tiny.batches import Scope, batch
from foveate.tiny.recipe import MIXED
from foveate.tiny.vocabulary import IMAGE

SCOPE = Scope(((5, 7),), MIXED, (1, 3), (1, 4), chained=0.5)


def model():
    """A small model with fresh weights."""
    torch.manual_seed(0)
    return architecture.build(layers=3, hidden=64)


def stock_logits(model, drawn, row, part):
    """The stock model's logits of one block right after the pages of its row."""
    pages = drawn.patches.shape[1]
    cells = drawn.patches[row].flatten(0, 1).view(-1, 3, 1, 256)
    ids = torch.cat([drawn.prefix, part])[None]
    types = {"mm_token_type_ids": (ids == IMAGE).int()}
    out = model(
        input_ids=ids,
        pixel_values=cells.expand(-1, 3, 2, 256).reshape(-1, 1536),
        image_grid_thw=torch.tensor([[1, *drawn.grid]] * pages),
        **types,
    )
    return out.logits[0, len(drawn.prefix) :]


def blocks(drawn):
    """Every block of a batch: row, bin and which positions belong to it."""
    for row, bins in enumerate(drawn.blocks):
        for index, line in enumerate(bins):
            for block in sorted(set(line.tolist()) - {-1}):
                yield row, index, line == block


@pytest.mark.parametrize(("pages", "chunk"), [(1, 1000), (2, 17)])
def test_logits_loss_and_gradients_are_those_of_the_stock_model(pages, chunk, monkeypatch):
    monkeypatch.setattr(fast, "CHUNK", chunk)
    ours, drawn = model(), batch(SCOPE, ((5, 7), pages), 300, 5)
    outputs = fast.logits(ours, drawn)
    loss = fast.loss(outputs, drawn)
    loss.backward()
    stock, total = model(), torch.zeros(())
    for row, index, where in blocks(drawn):
        part, weights = drawn.tokens[row, index][where], drawn.weights[row, index][where]
        wanted = stock_logits(stock, drawn, row, part)
        torch.testing.assert_close(outputs[row, index][where], wanted, atol=1e-4, rtol=1e-4)
        each = F.cross_entropy(wanted[:-1], part[1:], reduction="none")
        total = total + (each * weights[:-1]).sum()
    total = total / drawn.weights.sum()
    total.backward()
    torch.testing.assert_close(loss, total, atol=1e-5, rtol=0)
    for (name, a), b in zip(ours.named_parameters(), stock.parameters(), strict=True):
        if a.requires_grad:
            same = F.cosine_similarity(a.grad.flatten(), b.grad.flatten(), dim=0)
            assert same > 0.9999, name


def test_exact_match_counts_whole_answers():
    drawn = batch(SCOPE, ((5, 7), 1), 300, 6)
    right = F.one_hot(drawn.tokens.roll(-1, dims=2), 50).float()
    assert fast.exact(right, drawn).all()
    spot = (drawn.answers == 2).nonzero()[0]
    right[tuple(spot)] = 0
    assert fast.exact(right, drawn).tolist() == [i != 2 for i in range(len(drawn.skills))]


def test_a_block_sees_nothing_of_the_others():
    drawn = batch(replace(SCOPE, chained=0.0), ((5, 7), 1), 300, 7)
    ours = model()
    before = fast.logits(ours, drawn)
    row, index, where = next(iter(blocks(drawn)))
    tokens = drawn.tokens.clone()
    tokens[row, index][~where] = 9
    after = fast.logits(ours, replace(drawn, tokens=tokens))
    torch.testing.assert_close(before[row, index][where], after[row, index][where])


def test_the_loss_further_ahead_equals_a_plain_loop():
    drawn, ours = batch(SCOPE, ((5, 7), 1), 300, 8), model()
    states = fast.states(ours, drawn)
    heads = [torch.nn.Linear(64, 64, bias=False) for _ in range(3)]
    table = ours.lm_head.weight
    losses = []
    for row, index, at in (drawn.answers >= 0).nonzero().tolist():
        for distance, head in enumerate(heads, start=2):
            last = at + distance - 1
            same = last < 36 and drawn.answers[row, index, last] == drawn.answers[row, index, at]
            if same:
                target = drawn.tokens[row, index, at + distance]
                losses.append(F.cross_entropy(table @ head(states[row, index, at]), target))
    wanted = torch.stack(losses).mean()
    torch.testing.assert_close(fast.ahead(states, heads, table, drawn), wanted)
