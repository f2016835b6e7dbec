"""Plain American English in docs, docstrings, messages and the help of commands.

A case is a file; the message of a failure names the line, the words and what to write instead.
Code, formulas and links are not read.
"""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

UNIT = (
    "atom|axis|batch|bead|bin|block|branch|call|category|cell|channel|checkpoint|chunk|class|cluster|column|"
    "command|config|core|coordinate|cut|dataset|device|dimension|direction|donor|draw|element|embryo|entry|epoch|"
    "expert|factor|feature|file|fold|folder|frame|function|gene|group|head|hour|iteration|key|kind|label|layer|"
    "level|line|machine|method|metric|minute|modality|mode|model|module|network|neighbor|node|option|page|panel|"
    "parameter|pass|platform|point|position|process|question|rank|region|round|row|run|sample|second|section|"
    "seed|set|spot|step|subject|table|task|thread|tile|time|token|tool|type|value|verb|window"
)
NUMBER = r"(?:a|an|one|two|three|four|eight|a few|several|many|\d[\d,]*(?:\.\d+)?)"
# A verb after "a cell" begins a clause: "along a layer a cell sits".
NO_VERB = "(?! (?:is|lies|sits|has|was|belongs|needs))"
# What may stand between a number and "a cell" in plain English: "one is a cell", "2 of a cell".
BETWEEN = (
    "above|about|after|and|are|as|at|become|becomes|before|below|between|by|for|from|gives|has|have|if|in|into|is|"
    "like|makes|needs|of|on|or|over|per|takes|than|that|then|to|under|was|where|which|with|within|without"
)
ACTOR = "(?:cell|expert|gene|head|model|network|section|spot|transformer|attention)s?"

RULES = {
    "baseline": r"\bfloors?\b",
    "say what happens: reported, described, passed, determined": r"\b(?:tell|tells|told|telling)\b",
    "requested, required, passed; to ask is for people": r"\b(?:asked|asks|asking)\b",
    "next to, compared with, besides": r"\bbeside\b",
    "manner, method, or nothing at all": r"\bways?\b",
    "retained, preserved, stored, unchanged": r"\bkept\b",
    "the noun that is meant (support set, buffer)": r"\bbanks?\b",
    "users, all, or the noun that is meant": r"\b(?:some|every|any)(?:one|body)\b",
    "the noun that is meant (some as a pronoun)": (
        r"\bsome(?=[.,;:)]| (?:is|are|was|were|do|does|have|has|may|can|will|need|fail|take)\b)"
    ),
    "the noun that is meant (one as a pronoun)": (
        r"\b(?:the|of|to|in|for|with|than|as) one\b(?=[.,;:)]| (?:that|which|with|where|to be)\b)"
    ),
    'per ("one per cell", not "one a cell")': (
        rf"\b{NUMBER} (?!(?:{BETWEEN})\b)\w+ an? (?:{UNIT})\b{NO_VERB}"
        rf"|\b(?:one|once|two|three|four|\d+) an? (?:{UNIT})\b{NO_VERB}"
        rf"|\b(?:one|two|three|four|\d+)(?: (?!(?:{BETWEEN})\b)\w+){{2}} an? (?:{UNIT})\b{NO_VERB}"
    ),
    "reads, uses, depends on: cells, genes and networks do not see, know or speak": (
        rf"\b{ACTOR} (?:has |have |had |was |were |never |not |ever |already |itself )*"
        r"(?:sees?|saw|seen|knows?|knew|known of|says?|guess\w*|believes?|thinks?|wants?)\b"
    ),
    "estimate": r"\bguess(?:es|ed|ing)?\b",
    "pass, or describe": r"\b(?:or|and|to|please) say (?=[\u00a7\"'(]|so\b|how\b|what\b|which\b)",
    "is reported, with a warning": r"\bsays? so\b|\bsaid so\b",
    "subpackage, layout": r"\brooms?\b|\bhouse\b",
    "guarantee": r"\bpromis\w*",
    "leave it out, or say what follows": r"\b[Bb]elieve\b",
    "new, again": r"\banew\b",
    "each, separately": r"\bone alone\b|\beach by itself\b|\bby itself alone\b",
    "the term of the field instead of a riddle": (
        r"\b(?:is no tissue|stands? in the place of|never was|comes? of it|what there is)\b"
    ),
    "American spelling": (
        r"\b(?:\w*(?:colour|neighbour|behaviour|favour|labour)\w*|cent(?:re|res|red|ring)|grey|artefacts?|catalogues?|"
        r"analys(?:e|ed|er|ing)|model(?:led|ling)|label(?:led|ling)|cancel(?:led|ling)|travell\w+|whilst|amongst|"
        r"programme|licence|metres?|litres?|ageing|judgement|fulfil|"
        r"(?:general|initial|normal|standard|optim|regular|summar|visual|util|organ|recogn|minim|maxim|serial|"
        r"parallel|real|random|token|local|special|final|emphas|penal|quant|discret|symmetr|rasteri|character|harmon|"
        r"categor|vector|binar|factor|diagonal|memor|priorit|synthes|stabil|custom|equal|neutral|material)"
        r"is(?:e|es|ed|er|ers|ing|ation|ations))\b"
    ),
}
GAP = r"(?:[^\S\n]+|[^\S\n]*\n[^\S\n]*)"  # a space or the end of a line, not of a paragraph
PATTERNS = {
    instead: re.compile(pattern.replace(" ", GAP), re.IGNORECASE)
    for instead, pattern in RULES.items()
}
RIDDLE = re.compile(r"(?:What|How|Where|Whether|Who|Why|When|That|Those|Tell|Say|Ask)\b")

# Words that a rule finds and that stay, each with the reason.
ALLOWED = {
    "asked questions": "the usual name of such a page",
    "called floors": "the changelog names what was renamed",
    "Statistical Analysis and Modelling of Spatial Point Patterns": "the title of a book",
    "one-way": "a term of statistics",
    "two-way": "a term of statistics",
    "one by one": "an adverb",
}


def blank(text, pattern, flags=0):
    """Text with the matches of a pattern replaced by as many signs, so that lines stay."""
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", "\u00a7", m[0]), text, flags=flags)


def prose(text):
    """Text without code, formulas, links and comments."""
    text = blank(text, r"^---\n.*?\n---\n", re.DOTALL)
    text = blank(text, r"<!--.*?-->", re.DOTALL)
    admonition = r"\{(?:note|tip|warning|admonition|dropdown|important|seealso)\}"
    text = blank(text, rf"^(\s*)(```+)(?!{admonition}).*?^\1\2\s*$", re.DOTALL | re.MULTILINE)
    text = blank(text, r"^\s*(?:>>>|\.\.\. |\.\.\.$).*$", re.MULTILINE)
    text = blank(text, r"``[^`]+``|`[^`]+`")
    text = blank(text, r"\$\$.*?\$\$|\$[^$\n]+\$", re.DOTALL)
    text = blank(text, r"\]\([^)]*\)|https?://\S+|<[^>\n]+>|:\w+:`[^`]+`")
    for words in ALLOWED:
        text = blank(text, re.escape(words).replace(r"\ ", r"\s+"), re.IGNORECASE)
    return text


def hits(text, first_line=1, where=""):
    text = prose(text)
    for instead, pattern in PATTERNS.items():
        for match in pattern.finditer(text):
            line = first_line + text.count("\n", 0, match.start())
            around = text[max(0, match.start() - 30) : match.end() + 30]
            yield f"{where}{line}: …{' '.join(around.split())}… -> {instead}"


def words_of(node):
    """The text of a string, with a sign for each value put into it."""
    if isinstance(node, ast.JoinedStr):
        return "".join(words_of(part) for part in node.values)
    return (
        node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "\u00a7"
    )


def strings(node):
    """Strings under a node; a string with values in it counts once."""
    if isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    ):
        yield node
        return
    for child in ast.iter_child_nodes(node):
        yield from strings(child)


def texts_of_source(tree):
    """Docstrings, messages and help of options, each with its first line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node) is not None:
                yield node.body[0].lineno, node.body[0].value.value, True
        elif isinstance(node, ast.Raise) and node.exc is not None:
            for text in strings(node.exc):
                yield text.lineno, words_of(text), False
        elif isinstance(node, ast.Call):
            name = (
                node.func.attr
                if isinstance(node.func, ast.Attribute)
                else getattr(node.func, "id", "")
            )
            spoken = node.args if name in {"warn", "warning", "info"} else []
            spoken = spoken + [k.value for k in node.keywords if k.arg in {"help", "description"}]
            for argument in spoken:
                for text in strings(argument):
                    yield text.lineno, words_of(text), False


def hits_of_source(path):
    for line, text, is_docstring in texts_of_source(ast.parse(path.read_text())):
        yield from hits(text, line)
        if is_docstring and RIDDLE.match(text.strip()):
            first = text.strip().splitlines()[0]
            yield f"{line}: {first} -> begin with a noun of the field or an imperative"


def hits_of_notebook(path):
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        if cell["cell_type"] == "markdown":
            yield from hits("".join(cell["source"]), where=f"cell {number}, line ")


PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "benchmarks" / "results").glob("*.md"),  # parts of pages
    ]
    if ".zh" not in path.name and path.name != "zh.md"
)
SOURCES = sorted((ROOT / "src").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_pages_are_plain_english(path):
    found = list(hits(path.read_text()))
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_docstrings_messages_and_help_are_plain_english(path):
    found = list(hits_of_source(path))
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_tutorials_are_plain_english(path):
    found = list(hits_of_notebook(path))
    assert not found, "\n".join(["", *found])


BAD = [
    "The best floor.",
    "A sample of cells\nbeside it.",
    "one a cell",
    "The steps are told.",
    "A gene guesses.",
    "The network has never seen it.",
    "256 cells a step",
    "normalised counts",
    "the genes of some, and",
]
GOOD = [
    "A section is a value of a column.",
    "One pass per cell.",
    "`floor(x)` is code.",
    "The pathway of some genes.",
    "2 of a cell",
    "cells\n\nA section of 3 genes",
    "[rounding](page.md#floor)",
]


@pytest.mark.parametrize("text", BAD)
def test_the_rules_find_what_they_are_for(text):
    assert list(hits(text))


@pytest.mark.parametrize("text", GOOD)
def test_the_rules_pass_plain_english(text):
    assert not list(hits(text))
