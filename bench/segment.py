"""What cleaning and segmentation cost, and how often a sentence ends where it should.

    python -m bench.segment [--repeat 20]

Prints microseconds a token for the cleaner, the segmenter (with a look at its guess after every
token, as a session takes) and both, beside bare sentencex on the same tokens in the same run;
microseconds a character at 10 KB, 100 KB and 1 MB; and the cases of ``segment_cases`` that come
out right by language, sentencex with the whole text before it beside ours one character at a
time. The last line is the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable

import sentencex
from rich.console import Console
from rich.table import Table

from bench.segment_cases import CASES, expected, text_of
from voice_server.core.segmenter import Segmenter
from voice_server.core.text.cleaning import Cleaner

PROSE = (
    "Sure, I can help you with that. The quick brown fox jumps over the lazy dog, and then it "
    "rests for a while in the shade of the old oak tree. Dr. Smith said that it costs $3.50 "
    "today! Would you like to know more about this topic? I can explain it in detail, step by "
    "step, if you want. "
)
MARKDOWN = """## Getting **started**

Here's what you need: a *good* knife, some `bread`, and 3.5 cups of flour. The dough has to rest \
for about an hour before it is worked again. See [the recipe](https://example.com/recipe?id=3) \
for the details of every step!

1. **Mix** the flour and the water in a large bowl.
2. Knead the dough for ten minutes, then let it rest 😀.

- Bake it at 200 °C until it is golden brown on all sides
- Let it cool before you cut it

"""
# A word with the space in front of it, long words in two: 3.8 characters on the average.
TOKEN = re.compile(r"\s?\w{1,6}|\s?[^\w\s]{1,2}|\s+")


def tokens_of(text: str, length: int) -> list[str]:
    return TOKEN.findall((text * (length // len(text) + 1))[:length])


def clean(tokens: list[str]) -> None:
    cleaner = Cleaner(tags={"laugh"})
    for token in tokens:
        cleaner.push(token)
    cleaner.flush()


def segment(tokens: list[str]) -> None:
    segmenter = Segmenter(language="en")
    for token in tokens:
        segmenter.push(token)
        _ = segmenter.guess
    segmenter.flush()


def both(tokens: list[str]) -> None:
    cleaner, segmenter = Cleaner(tags={"laugh"}), Segmenter(language="en")
    for token in tokens:
        text = cleaner.push(token)
        if text:
            segmenter.push(text)
            _ = segmenter.guess
    segmenter.push(cleaner.flush())
    segmenter.flush()


def sentencex_at_marks(tokens: list[str]) -> None:
    """The least that a stream can ask of it: once for every token with a mark in it."""
    buffer = ""
    for token in tokens:
        buffer += token
        if "." in token or "!" in token or "?" in token:
            *_, buffer = sentencex.segment("en", buffer)


def sentencex_at_tokens(tokens: list[str]) -> None:
    """What a stream asks of it that keeps no state of its own: once for every token."""
    buffer = ""
    for token in tokens:
        buffer += token
        *_, buffer = sentencex.segment("en", buffer)


def seconds(run: Callable[[list[str]], None], tokens: list[str], repeat: int) -> float:
    """The quickest of ``repeat`` runs: what disturbs one on a busy machine only adds."""
    best = float("inf")
    for _ in range(repeat):
        started = time.perf_counter()
        run(tokens)
        best = min(best, time.perf_counter() - started)
    return best


def cost(console: Console, repeat: int) -> dict[str, object]:
    table = Table("µs a token", "prose", "markdown", title="Cost")
    texts = {"prose": tokens_of(PROSE, 20_000), "markdown": tokens_of(MARKDOWN, 20_000)}
    found: dict[str, object] = {
        f"chars_per_token_{name}": round(20_000 / len(tokens), 2) for name, tokens in texts.items()
    }
    runs = (sentencex_at_marks, sentencex_at_tokens, clean, segment, both)
    best = {(run, name): float("inf") for run in runs for name in texts}
    # All in turn, and again: a machine that is busy for a while disturbs every one of them.
    for _ in range(repeat):
        for run, name in best:
            best[run, name] = min(best[run, name], seconds(run, texts[name], 1))
    for run in runs:
        costs = {n: round(best[run, n] / len(t) * 1e6, 2) for n, t in texts.items()}
        table.add_row(run.__name__.replace("_", " "), *(f"{value:.2f}" for value in costs.values()))
        found[run.__name__] = costs
    console.print(table)
    return found


def growth(console: Console, repeat: int) -> dict[str, object]:
    sizes = (10_000, 100_000, 1_000_000)
    table = Table("µs a character", *(f"{size:,}" for size in sizes), title="Growth, both")
    found: dict[str, object] = {}
    texts = {
        "prose, in tokens": lambda size: tokens_of(PROSE, size),
        "markdown, in tokens": lambda size: tokens_of(MARKDOWN, size),
        "prose, at once": lambda size: ["".join(tokens_of(PROSE, size))],
        "no punctuation": lambda size: ["lorem ipsum " * (size // 12)],
        "no space": lambda size: ["x" * size],
        "full stops": lambda size: ["." * size],
    }
    for name, make in texts.items():
        costs = {}
        for size in sizes:
            tokens = make(size)
            took = seconds(both, tokens, min(repeat, 3))
            costs[str(size)] = round(took / size * 1e6, 3)
        table.add_row(name, *(f"{value:.3f}" for value in costs.values()))
        found[name] = costs
    console.print(table)
    return found


def accuracy(console: Console) -> dict[str, object]:
    table = Table("language", "cases", "ours", "language unknown", "sentencex", title="Accuracy")
    found: dict[str, object] = {}
    totals = [0, 0, 0, 0]
    for language, cases in CASES.items():
        row = [len(cases), 0, 0, 0]
        for case in cases:
            text, right = text_of(case), expected(case)
            alone = [part.strip() for part in sentencex.segment(language, text)]
            row[1] += streamed(text, language) == right
            row[2] += streamed(text, None) == right
            row[3] += list(filter(None, alone)) == right
        table.add_row(language, *map(str, row))
        totals = [total + part for total, part in zip(totals, row, strict=True)]
        found[language] = row
    table.add_row("all", *map(str, totals), style="bold")
    console.print(table)
    names = ("cases", "ours", "ours_language_unknown", "sentencex")
    return {"by_language": found, **dict(zip(names, totals, strict=True))}


def streamed(text: str, language: str | None) -> list[str]:
    """Our segments of the text, one character at a time."""
    segmenter = Segmenter(language=language, first_clause=False)
    cuts = [cut for char in text for cut in segmenter.push(char)] + segmenter.flush()
    return [cut.text for cut in cuts]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeat", type=int, default=20)
    repeat = parser.parse_args().repeat
    console = Console()
    report = {
        "bench": "segment",
        "us_per_token": cost(console, repeat),
        "us_per_char": growth(console, repeat),
        "accuracy": accuracy(console),
    }
    print(json.dumps(report, ensure_ascii=False))


if __name__ == "__main__":
    main()
