"""Tables that benchmarks write into pages of docs/, between two marks of a name."""

from dnnlib.files import atomic_write_text


def write(path, name, text):
    """Replace what stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->` in the page at `path` (a Path)."""
    page = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = page.split(begin)
    atomic_write_text(path, f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")


def markdown(header, rows):
    """A table of cells that are texts."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
