"""Eviction while decoding, one token and one list at a time: one unpadded sample, one layer.

Q is [Hq, n, D], K is [H, n, D]: the prompt's T tokens and all that come later. `kept` is what the
prompt keeps, per head. `passes` says how many tokens each later pass has, as (tokens, is_prompt).
A rule is looked up after a prompt and after `every` new tokens. Every simulator returns the stored
positions [pass][head]. `found`, in that form, is what another program kept: where its choice
differs only between tokens whose worth agrees to 1e-5 of it, the simulator goes on from there.
"""

import math

import numpy as np


def row_attention(q, K, scaling):
    """Softmax of one query over the keys [n, D] that it sees."""
    z = (K.astype(np.float64) @ q.astype(np.float64)) * scaling
    e = np.exp(z - z.max())
    return e / e.sum()


def received(Q, K, h, i, stored, scaling):
    """What row i gives every stored position at or before it, on average over the group of h."""
    groups = Q.shape[0] // K.shape[0]
    sees = [j for j in stored if j <= i]
    total = np.zeros(len(sees))
    for g in range(groups):
        total += row_attention(Q[h * groups + g, i], K[h, sees], scaling)
    return dict(zip(sees, (total / groups).tolist(), strict=True))


def prompt_state(Q, K, T, scaling):
    """Per head and position the sum, the sum of squares and the number of what the rows gave."""
    state = []
    for h in range(K.shape[0]):
        head = {}
        for i in range(T):
            add(head, received(Q, K, h, i, range(T), scaling))
        state.append(head)
    return state


def add(head, given):
    """Add one row's attention to the state of a head."""
    for j, a in given.items():
        total, square, count = head.get(j, (0.0, 0.0, 0))
        head[j] = (total + a, square + a * a, count + 1)


def room_for(kept, T, keep, grows):
    """The room of a head that kept so many of T, by the tokens of all prompts and all seen."""

    def room(prompts, seen):
        if grows:
            return -(-kept * seen // T)
        if isinstance(keep, int):
            return kept + max(0, keep - T)
        return kept * prompts // T

    return room


def best(stored, count, worth, tier, pinned, found):
    """The `count` stored positions that stay: pinned, newest first; then by tier, worth, age."""
    first = sorted((j for j in stored if j in pinned), reverse=True)[:count]
    rest = [j for j in stored if j not in pinned]
    rest.sort(key=lambda j: (-tier(j), -worth(j), j))
    mine = sorted(first + rest[: max(0, count - len(first))])
    if found is not None and len(found) == len(mine) and set(found) <= set(stored):
        less = [j for j in mine if j not in found]
        more = [j for j in found if j not in mine]
        if not any(j in pinned for j in less + more) and all(
            tier(i) == tier(j) and math.isclose(worth(i), worth(j), rel_tol=1e-5, abs_tol=1e-37)
            for i in less
            for j in more
        ):
            return list(found)
    return mine


def follow(look, kept, T, passes, every, found):
    """Stored positions after every pass; `look` gives what stays of them."""
    stored = [list(head) for head in kept]
    seen, prompts, fresh, history = T, T, [], []
    for number, (tokens, is_prompt) in enumerate(passes):
        new = list(range(seen, seen + tokens))
        for head in stored:
            head += new
        seen += tokens
        prompts += tokens if is_prompt else 0
        fresh += new
        if is_prompt or len(fresh) >= every:
            theirs = found[number] if found else [None] * len(kept)
            stored = look(stored, fresh, prompts, seen, theirs)
            fresh = []
        history.append([list(head) for head in stored])
    return history


def share(part, keep, prompts):
    """How many of the newest tokens are pinned: a share of the budget."""
    budget = keep if isinstance(keep, int) else keep * prompts
    return math.floor(part * budget + 1e-6)


def h2o(Q, K, scaling, T, kept, passes, *, keep, every=1, found=None, recent=0.5, statistic="sum"):
    """Attention summed over all rows so far, or per row that saw the token; the newest stay."""
    state = prompt_state(Q, K, T, scaling)

    def look(stored, fresh, prompts, seen, theirs):
        newest = range(seen - share(recent, keep, prompts), seen)
        out = []
        for h, positions in enumerate(stored):
            for i in fresh:
                add(state[h], received(Q, K, h, i, positions, scaling))

            def worth(j, head=state[h]):
                return head[j][0] / (head[j][2] if statistic == "rate" else 1)

            room = room_for(len(kept[h]), T, keep, False)(prompts, seen)
            out.append(best(positions, room, worth, lambda j: 0, newest, theirs[h]))
        return out

    return follow(look, kept, T, passes, every, found)


def tova(Q, K, scaling, T, kept, passes, *, keep, every=1, found=None):
    """What the newest row gives, on average over all query heads."""

    def look(stored, fresh, prompts, seen, theirs):
        H, last = K.shape[0], fresh[-1]
        given = [received(Q, K, h, last, stored[h], scaling) for h in range(H)]
        mean = {j: sum(given[h][j] for h in range(H)) / H for j in stored[0]}
        return [
            best(
                positions,
                room_for(len(kept[h]), T, keep, False)(prompts, seen),
                mean.__getitem__,
                lambda j: 0,
                [],
                theirs[h],
            )
            for h, positions in enumerate(stored)
        ]

    return follow(look, kept, T, passes, every, found)


def streaming(Q, K, scaling, T, kept, passes, *, keep, every=1, found=None, sinks=4):
    """The first tokens stay, and the newest."""

    def look(stored, fresh, prompts, seen, theirs):
        out = []
        for h, positions in enumerate(stored):
            room = room_for(len(kept[h]), T, keep, False)(prompts, seen)
            out.append(best(positions, room, lambda j: j, lambda j: 0, range(sinks), None))
        return out

    return follow(look, kept, T, passes, every, found)


def roco(
    Q, K, scaling, T, kept, passes, *, keep, every=1, found=None, sinks=4, newest=10, spread=0.3
):
    """Of the tokens whose attention is steadiest the one with the lowest mean goes."""
    state = prompt_state(Q, K, T, scaling)

    def look(stored, fresh, prompts, seen, theirs):
        pinned = {*range(sinks), *range(seen - newest, seen)}
        out = []
        for h, positions in enumerate(stored):
            for i in fresh:
                add(state[h], received(Q, K, h, i, positions, scaling))
            mean = {j: state[h][j][0] / state[h][j][2] for j in positions}
            std = {j: deviation(*state[h][j]) for j in positions}
            std |= {j: math.inf for j in positions if j in pinned}
            room = room_for(len(kept[h]), T, keep, False)(prompts, seen)
            steady = sorted(positions, key=lambda j: (std[j], -j))
            steady = steady[: room - math.floor(spread * room + 1e-6)]

            def tier(j, may_go=frozenset(steady)):
                return 0 if j in may_go else 1

            out.append(best(positions, room, mean.__getitem__, tier, pinned, theirs[h]))
        return out

    return follow(look, kept, T, passes, every, found)


def deviation(total, square, count):
    """Standard deviation; what is below 1e-6 of the mean square is rounding."""
    variance = square / count - (total / count) ** 2
    return math.sqrt(variance) if variance >= 1e-6 * square / count else 0.0


def cake(Q, K, scaling, T, kept, passes, *, keep, every=1, found=None, window=8, kernel=5):
    """What the current rows give, smoothed over neighbouring slots; the window stays."""

    def look(stored, fresh, prompts, seen, theirs):
        out = []
        for h, positions in enumerate(stored):
            given = dict.fromkeys(positions, 0.0)
            for i in fresh:
                for j, a in received(Q, K, h, i, positions, scaling).items():
                    given[j] += a / len(fresh)
            smooth = {}
            for place, j in enumerate(positions):
                near = range(place - kernel // 2, place + kernel // 2 + 1)
                inside = [given[positions[p]] for p in near if 0 <= p < len(positions)]
                smooth[j] = sum(inside) / kernel
            room = room_for(len(kept[h]), T, keep, False)(prompts, seen)
            recent = range(seen - window, seen)
            out.append(best(positions, room, smooth.__getitem__, lambda j: 0, recent, theirs[h]))
        return out

    return follow(look, kept, T, passes, every, found)


def fixed_index(Q, K, scaling, T, kept, passes, *, keep, every=1, found=None, distance=-25):
    """Elastic Cache and PrefixKV: what stands at a fixed index goes, the cache is a share."""
    lasting = [len(head) + distance for head in kept]
    lasting = [P if P >= 1 else len(head) // 2 for P, head in zip(lasting, kept, strict=True)]

    def look(stored, fresh, prompts, seen, theirs):
        out = []
        for h, positions in enumerate(stored):
            positions, share_kept = list(positions), len(kept[h])
            # deleted as long as floor(stored - kept / T * seen) >= 1
            while T * len(positions) - share_kept * seen >= T:
                del positions[min(lasting[h], len(positions) - 1)]
            out.append(positions)
        return out

    return follow(look, kept, T, passes, every, found)


SIMULATORS = {
    "h2o": h2o,
    "tova": tova,
    "streaming": streaming,
    "roco": roco,
    "cake": cake,
    "elastic": fixed_index,
    "prefixkv": fixed_index,
}
