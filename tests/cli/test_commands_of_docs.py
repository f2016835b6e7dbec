"""The commands of README and docs: they parse, and the Chinese quickstart has the same ones."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from alphastomics.main import app, train_app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SPELLING = re.compile(
    r"(?:srun |\$ )?(alphastomics|python -m alphastomics(?:\.main)?|python train\.py) +(.*)"
)
BLOCK = re.compile(r"^ *```(?:bash|console|sh)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
END = {"|", "||", "&&", ";", "#", "&"}


def blocks(path):
    return BLOCK.findall(path.read_text())


def commands(path):
    """Spelling and words of every command of a page."""
    for block in blocks(path):
        for line in block.replace("\\\n", " ").splitlines():
            found = SPELLING.match(line.strip())
            if found is None:
                continue
            words = shlex.split(found[2], comments=True)
            ends = [i for i, word in enumerate(words) if word in END or ">" in word]
            yield found[1], words[: min(ends, default=len(words))]


def parse(spelling, words):
    """Parse a command, and run nothing; raises if it has an unknown option or value."""
    if spelling == "python train.py":
        get_command(train_app).make_context(spelling, words)
        return
    group = get_command(app)
    name, *options = words
    if name.startswith("-") or {"-h", "--help"} & set(options):
        return
    parent = group.make_context("alphastomics", [name])
    group.commands[name].make_context(name, options, parent=parent)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_of_a_page_parse(path):
    for spelling, words in commands(path):
        parse(spelling, words)


def test_a_wrong_option_would_be_found():
    assert len(list(commands(ROOT / "QUICKSTART.md"))) > 8
    with pytest.raises(Exception, match="No such option"):
        parse("alphastomics", ["train", "--nonsense", "1"])


def test_the_chinese_quickstart_is_in_step():
    """Commands and their output are the same, and it has as many headings and tables."""
    english, chinese = ROOT / "QUICKSTART.md", ROOT / "docs" / "QUICKSTART.zh.md"
    assert blocks(chinese) == blocks(english)
    for pattern in (r"^#+ ", r"^\|", r"^```text\n(?:.*?\n)*?```", r"^!\["):
        found = [re.findall(pattern, p.read_text(), re.MULTILINE) for p in (english, chinese)]
        assert found[0] == found[1], pattern
