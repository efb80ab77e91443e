"""Pages whose numbers come from files: the text between `<!-- NAME: begin -->` and `<!-- NAME: end -->` is made anew."""

import re
from pathlib import Path

from dnnlib.errors import UserError
from dnnlib.files import atomic_write_text


def replaced(page_text, mark, text, page="the page"):
    """page_text with `text` between the marks; a sentence if they are not there."""
    pattern = re.compile(rf"(<!-- {re.escape(mark)}: begin -->\n).*?(<!-- {re.escape(mark)}: end -->)", re.DOTALL)
    if not pattern.search(page_text):
        raise UserError(f"{page} has no marks '<!-- {mark}: begin -->' and '<!-- {mark}: end -->' any more; put them back where the text belongs.")
    return pattern.sub(lambda match: match.group(1) + text.rstrip() + "\n" + match.group(2), page_text)


def write_between(page, mark, text):
    """The same in a file, atomically."""
    page = Path(page)
    atomic_write_text(str(page), replaced(page.read_text(encoding="utf-8"), mark, text, page))
