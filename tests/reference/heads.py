"""SparseMM's head scores as plain loops over full attention matrices, written from the paper."""


def touched(cells, size, box):
    """Return the positions of the tokens whose area a box has a pixel in."""
    width, height = size
    left, top, right, bottom = box
    found = []
    for y, row in enumerate(cells):
        for x, position in enumerate(row):
            x0, x1 = x * width / len(row), (x + 1) * width / len(row)
            y0, y1 = y * height / len(cells), (y + 1) * height / len(cells)
            if left < x1 and right >= x0 and top < y1 and bottom >= y0:
                found.append(position)
    return found


def scores(answers):
    """Return score[layer][head] and the number of used tokens.

    An answer is (texts, attentions, chunks, cells, size); attentions[token][layer][head] is the
    last row of that pass's matrix, a chunk is (text, box).
    """
    total, used = {}, 0
    for texts, attentions, chunks, cells, size in answers:
        for text, layers in zip(texts, attentions, strict=True):
            inside = [box for word, box in chunks if text in word]
            if len(inside) != 1:
                continue
            used += 1
            places = touched(cells, size, inside[0])
            for layer, heads in enumerate(layers):
                for head, row in enumerate(heads):
                    best = max(range(len(row)), key=lambda column: (row[column], -column))
                    if best in places:
                        key = (layer, head)
                        total[key] = total.get(key, 0.0) + 1 / len(places)
    whole = sum(total.values())
    return {key: value / whole for key, value in total.items()}, used
