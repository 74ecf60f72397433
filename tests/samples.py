"""Observations of made-up prompts: text (t), special text (s), images (v), pads (p)."""

import torch

from foveate.types import Observation, Rotation, TokenKinds

ONE = "stt" + "v" * 29 + "sttttts"
PROMPTS = {
    "one image": (ONE,),
    "two images": ("t" + "v" * 13 + "ttt" + "v" * 17 + "tttttt",),
    "video, text between frames": ("tt" + ("v" * 6 + "tt") * 5 + "ttt",),
    "text only": ("t" * 33,),
    "no text behind": ("ttt" + "v" * 41,),
    "one text token behind": ("tt" + "v" * 23 + "t",),
    "image at the start": ("v" * 21 + "ttt",),
    "short": ("tvt",),
    "padded batch": (
        "p" * 9 + "tt" + "v" * 13 + "ttttt" + "v" * 5 + "ttttt",
        "sttt" + "v" * 28 + "ttttttt",
        "p" * 25 + "v" * 3 + "ttttttttttt",
    ),
}


def kinds_of(*layouts: str) -> TokenKinds:
    """Return kinds from words such as "pp t vvv tt": one per row, all of the same length."""
    rows = [layout.replace(" ", "") for layout in layouts]
    assert len({len(row) for row in rows}) == 1, "rows differ in length"
    kind = torch.tensor([[{"p": -1, "t": 0, "s": 0, "v": 1}[c] for c in row] for row in rows])
    special = torch.tensor([[c == "s" for c in row] for row in rows])
    return TokenKinds.of(kind, special)


def observations(
    kinds: TokenKinds, *, layers=5, Hq=6, H=2, D=8, seed=0, sharpness=2.0, dtype=torch.float32
) -> list[Observation]:
    """Return random observations of all rows; attention gets peaks where keys resemble queries."""
    made = torch.Generator().manual_seed(seed)
    rotation = Rotation(100.0 ** -(torch.arange(D // 2) / max(1, D // 2)))
    B, T = kinds.kind.shape

    def normal(*shape):
        return torch.randn(*shape, generator=made).to(dtype)

    return [
        Observation(
            normal(B, Hq, T, D) * sharpness,
            normal(B, H, T, D),
            normal(B, H, T, D + 3),
            kinds,
            D**-0.5,
            layer,
            rotation=rotation,
            layers=layers,
        )
        for layer in range(layers)
    ]


def only_row(observation: Observation, row: int) -> Observation:
    """Return one row without its padding."""
    kinds = observation.kinds
    start = int((kinds.kind[row] == -1).sum())
    cut = kinds.rows(torch.tensor([row])).columns(start, kinds.kind.shape[1])
    part = (slice(row, row + 1), slice(None), slice(start, None))
    return Observation(
        observation.queries[part],
        observation.keys[part],
        observation.values[part],
        cut,
        observation.scaling,
        observation.layer,
        rotation=observation.rotation,
        layers=observation.layers,
    )


def random_prompts(draw, length: int) -> list[str]:
    """Return one to three made-up layouts of that length, padded on the left or not."""
    prompts: list[str] = []
    while len(prompts) < draw.randint(1, 3):
        prompt = "p" * draw.randint(0, length - 2)
        while len(prompt) < length:
            prompt += draw.choice(["t", "tt", "s", "v" * draw.randint(1, 9)])
        prompts.append(prompt[:length])
    return prompts
