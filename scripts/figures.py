"""Draws docs/images/kept.svg: what a compressed cache keeps of a prompt, and how that is stored."""

from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "docs" / "images" / "kept.svg"
SIZE, LEFT, WIDTH = 22, 150, 724
TEXT, PICTURE, ANSWER, EMPTY = "#4c6a92", "#d98324", "#6b8f4e", "#ffffff"
SPANS = [("text", 0, 2, TEXT), ("picture", 2, 16, PICTURE)]
SPANS += [("question", 16, 21, TEXT), ("answer", 21, 24, ANSWER)]
KEPT = {  # (layer, head): places of the picture that stay
    (0, 0): [5, 11],
    (0, 1): [5, 11],
    (1, 0): [4, 5, 6, 10, 11, 12],
    (1, 1): [5, 6],
}


def colour(place: int) -> str:
    """Return the colour of a place of the prompt or the answer."""
    return next(shade for _, start, stop, shade in SPANS if start <= place < stop)


def cell(x: float, y: float, fill: str, text: str = "", dashed: bool = False) -> str:
    """Return a square with a number in it."""
    line = 'stroke="#b8b8b8" stroke-dasharray="2 2"' if dashed else 'stroke="#ffffff"'
    square = f'<rect x="{x}" y="{y}" width="{SIZE}" height="{SIZE}" fill="{fill}" {line}/>'
    return square + (words(x + SIZE / 2, y + 15, text, "middle", "#ffffff", 10) if text else "")


def words(x: float, y: float, text: str, anchor: str, fill: str = "#333333", size: int = 12) -> str:
    """Return a line of text."""
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{fill}" font-size="{size}">'
        f"{text}</text>"
    )


def stays(layer: int, head: int) -> list[int]:
    """Return the places that a head keeps: all text, the answer, and some of the picture."""
    return [p for p in range(24) if colour(p) != PICTURE or p in KEPT[layer, head]]


def positions(top: float) -> list[str]:
    """Return the prompt and, for every head, what stays of it."""
    parts = []
    for name, start, stop, shade in SPANS:
        middle = LEFT + SIZE * (start + stop) / 2
        parts.append(words(middle, top - 8, name, "middle", shade))
    rows = [("full cache", range(24))]
    rows += [(f"layer {n}, head {h}", stays(n, h)) for n, h in KEPT]
    for row, (name, kept) in enumerate(rows):
        y = top + row * (SIZE + 6)
        parts.append(words(LEFT - 10, y + 15, name, "end"))
        for place in range(24):
            number = str(place) if place in kept else ""
            shade = colour(place) if place in kept else EMPTY
            parts.append(cell(LEFT + place * SIZE, y, shade, number, place not in kept))
    return parts


def slots(top: float) -> list[str]:
    """Return how layer 1 is stored: padded, or in one line."""
    prompts = [[place for place in stays(1, head) if place < 21] for head in (0, 1)]
    longest = max(map(len, prompts))
    parts = [words(LEFT - 10, top + 15, "layer 1, dense", "end")]
    for row, kept in enumerate(prompts):
        padded = [*[""] * (longest - len(kept)), *map(str, kept), "21", "22", "23"]
        for slot, number in enumerate(padded):
            shade = colour(int(number)) if number else EMPTY
            parts.append(cell(LEFT + slot * SIZE, top + row * SIZE, shade, number, not number))
    y = top + 2 * SIZE + 12
    parts.append(words(LEFT - 10, y + 15, "layer 1, ragged", "end"))
    x = float(LEFT)
    for kept in prompts:
        parts += [cell(x + i * SIZE, y, colour(p), str(p)) for i, p in enumerate(kept)]
        x += len(kept) * SIZE + 4
    for row in range(2):  # what is generated lies behind, the same for all heads
        parts += [cell(x + 6 + i * SIZE, y + row * SIZE, ANSWER, str(21 + i)) for i in range(3)]
    return parts


def figure() -> str:
    """Return the whole drawing."""
    parts = [*positions(38), *slots(206)]
    about = "Every head keeps all text and its own part of the picture; positions stay as they were"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 320" role="img" '
        f'aria-label="{about}" font-family="sans-serif">\n'
        f'<rect width="{WIDTH}" height="320" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(figure())
