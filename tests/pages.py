"""The pages of the documentation as data: their blocks, links, headings and tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click

ROOT = Path(__file__).parent.parent
SITE = "https://github.com/pinnacle-ai/pinnacle"

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ANY_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """One Markdown file of the repository."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def prose(self) -> str:
        """The text without its code blocks."""
        return _ANY_FENCE.sub("", self.text)

    def blocks(self, language: str) -> list[str]:
        """The code blocks of one language, in order."""
        return [code for found, code in _FENCE.findall(self.text) if found == language]

    @property
    def program(self) -> str:
        """The Python blocks, joined: those of a page are one program, and later ones build on earlier ones."""
        return "\n".join(self.blocks("python"))

    @property
    def commands(self) -> list[str]:
        """The lines of the shell blocks, without their comments."""
        lines = "\n".join(self.blocks("sh")).splitlines()
        return [line for line in (line.partition(" #")[0].strip() for line in lines) if line and line[0] != "#"]

    @property
    def links(self) -> list[str]:
        """Where the links lead, as they are written."""
        return _LINK.findall(self.prose)

    @property
    def anchors(self) -> set[str]:
        """What a link may name behind ``#``: the headings, as GitHub and the site's generator write them."""
        plain = (re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading) for heading in _HEADING.findall(self.prose))
        return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in plain}

    def table(self, header: str, *, occurrence: int = 0) -> dict[str, tuple[str, ...]]:
        """The rows of the table, of those whose header begins with ``header``: the other cells by the first."""
        lines = self.text.splitlines()
        first = [i for i, line in enumerate(lines) if _cells(line)[:1] == [header]][occurrence]
        found = {}
        for line in lines[first + 2 :]:
            if not line.startswith("|"):
                break
            name, *others = _cells(line)
            found[name] = tuple(others)
        return found


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []


def pages() -> list[Page]:
    """All pages that users and contributors of pinnacle read."""
    written = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
    return [Page(ROOT / name) for name in written] + [Page(path) for path in sorted((ROOT / "docs").rglob("*.md"))]


def plugin_pages() -> list[Page]:
    """The front pages of the plug-ins: their examples need weights, a key or a GPU, and are not run."""
    return [Page(path) for path in sorted(ROOT.glob("plugins/*/README.md"))]


def page(name: str) -> Page:
    return Page(ROOT / name)


def help_of(program: click.Command, command: click.Command, name: str) -> str:
    """What ``name --help`` prints of a command of ``program``, on a terminal of 100 columns."""
    settings = {**program.context_settings, "terminal_width": 100, "max_content_width": 100}
    with click.Context(command, info_name=name, **settings) as context:
        return command.get_help(context)
