"""Links of the Markdown pages lead to files, and to headings of these."""

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("gateway", "provider", "tests", "web_demo")
OTHERS = {"build", "node_modules", "vendor"}  # folders with other people's pages
FOUND = [*ROOT.glob("*.md"), *(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))]
PAGES = sorted(page for page in FOUND if not OTHERS & {*page.relative_to(ROOT).parts})


def prose(page):
    """Return a page without its code."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", lambda code: re.sub(r"[\[\]()#]", "", code[0]), text)


def targets(page):
    """Return what the links and pictures of a page lead to, as `(file, anchor)`."""
    text = prose(page)
    found = re.findall(r"\]\(<?([^)\s>]+)", text)
    found += re.findall(r"^\[[^\]]+\]: *(\S+)", text, re.MULTILINE)
    found += re.findall(r'\b(?:href|src)="([^"]+)"', text)
    inside = [link for link in found if not re.match(r"[a-z]+:", link)]
    return [(name, anchor) for name, _, anchor in (link.partition("#") for link in inside)]


def anchors(page):
    """Return the anchors that GitHub gives to the headings of a page."""
    seen, found = Counter(), set()
    for heading in re.findall(r"^#{1,6} +(.*?)(?: +#+)?$", prose(page), re.MULTILINE):
        shown = re.sub(r"\]\([^)]*\)|[*\[`]", "", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found | set(re.findall(r'\b(?:id|name)="([^"]+)"', prose(page)))


def broken(page):
    for name, anchor in targets(page):
        target = page.parent / name if name else page
        if not target.exists():
            yield f"no file {name}"
        elif anchor and (target.suffix != ".md" or anchor not in anchors(target)):
            yield f"no heading #{anchor} in {target.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    assert list(broken(page)) == []


def test_every_page_of_the_tree_is_looked_at():
    listed = ["git", "ls-files", "*.md"]
    tracked = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert {ROOT / name for name in tracked.split()} <= {*PAGES}
    assert sum(len(targets(page)) for page in PAGES) > 30


PAGE = """# One `model`, two [links](other.md)
## Chat & more, *really*
## Twice
# Twice
```
# No heading, [no link](nowhere.md)
```
[here](#one-model-two-links), [again](#twice-1), `[code](x.md)`,
[over two
lines](#chat--more-really), [far](https://example.org/#a), [![picture](page.md)](page.md#twice)
"""


def test_anchors_are_github_s(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    assert anchors(page) == {"one-model-two-links", "chat--more-really", "twice", "twice-1"}
    assert list(broken(page)) == ["no file other.md"]


@pytest.mark.parametrize(
    ("link", "said"),
    [("gone.md", "no file gone.md"), ("#gone", "no heading #gone in page.md")],
)
def test_a_link_that_leads_nowhere_is_found(tmp_path, link, said):
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n[link]({link}), [fine](#a-page)\n", encoding="utf-8")
    assert list(broken(page)) == [said]
