"""Checks the documents: links lead somewhere, names and blocks are known, no machine's paths."""

import re
import sys
from pathlib import Path

from doc_blocks import BlockError, blocks

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+(?:\([^()]*\))?[^()\s]*)\)")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
NAME = re.compile(r"\bfoveate\.([A-Za-z_]\w*)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:home|root|Users|tmp|work|opt|mnt)/[\w-]+")


def documents(root: Path) -> list[Path]:
    """Return every document of the repository."""
    folders = ("docs", "design", "examples", "benchmarks", "src", "tests")
    nested = (path for folder in folders for path in root.glob(f"{folder}/**/*.md"))
    return sorted([*root.glob("*.md"), *nested])


def anchors(text: str) -> set[str]:
    r"""Return the anchors of a document's headings, named as code hosts name them.

    >>> sorted(anchors("# Bad input\n## `keep`: how much?\n## Bad input"))
    ['bad-input', 'bad-input-1', 'keep-how-much']
    """
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        words = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)).lower()
        anchor = base = words.strip().replace(" ", "-")
        number = 0
        while anchor in found:
            number += 1
            anchor = f"{base}-{number}"
        found.add(anchor)
    return found


def broken_links(path: Path, root: Path) -> list[str]:
    """Return a complaint per link of a document that leads nowhere."""
    complaints = []
    for target in LINK.findall(FENCE.sub("", path.read_text())):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        file, _, anchor = target.partition("#")
        place = (path.parent / file).resolve() if file else path
        if not place.exists() or not place.is_relative_to(root):
            complaints.append(f"link to {target}: no such file in the repository")
        elif anchor and place.suffix == ".md" and anchor not in anchors(place.read_text()):
            complaints.append(f"link to {target}: no such heading")
    return complaints


def unknown_names(text: str, known: set[str]) -> list[str]:
    """Return a complaint per `foveate.name` that does not exist."""
    return [f"foveate.{name} does not exist" for name in sorted(set(NAME.findall(text)) - known)]


def unknown_blocks(path: Path) -> list[str]:
    """Return a complaint if a block or the comment about its test means nothing."""
    try:
        blocks(path)
    except BlockError as error:
        return [str(error)]
    return []


def public_names() -> set[str]:
    """Return what can follow `foveate.`: public names and submodules."""
    import pkgutil

    import foveate

    modules = {module.name for module in pkgutil.iter_modules(foveate.__path__)}
    return {*foveate.__all__, *modules}


def main(root: Path = ROOT) -> int:
    """Print every complaint; return the exit code."""
    known = public_names()
    count = 0
    for path in documents(root):
        text = path.read_text()
        complaints = broken_links(path, root) + unknown_names(text, known) + unknown_blocks(path)
        complaints += [f"a path of one machine: {found}" for found in MACHINE_PATH.findall(text)]
        for complaint in complaints:
            print(f"{path.relative_to(root)}: {complaint}")
        count += len(complaints)
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
