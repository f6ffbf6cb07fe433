"""The table of all cases."""

from collections import Counter
from dataclasses import dataclass

from cases.case import Case
from limits import Limit

HEADINGS = ["case", "client", "upstream", "way", "direct", "proxied", "gap ms", "verdict", "first difference (direct | proxied)"]


@dataclass
class Row:
    case: Case
    direct: dict
    proxied: dict
    direct_gap: float | None
    proxied_gap: float | None
    # Place, and how.
    differences: list[tuple[str, str]]
    limit: Limit | None
    seconds: float

    @property
    def verdict(self) -> str:
        if not self.limit:
            return "DIFFERS" if self.differences else "same"
        if not self.differences:
            return "NO LIMIT ANY MORE"
        return "limit" if all(self.limit.allows(place) for place, _ in self.differences) else "DIFFERS ELSEWHERE"

    @property
    def is_wrong(self) -> bool:
        return self.verdict.isupper()

    def cells(self) -> list[str]:
        gaps = f"{self.direct_gap:.1f} | {self.proxied_gap:.1f}" if self.direct_gap and self.proxied_gap else ""
        # What a limit doesn't explain comes first.
        telling = sorted(self.differences, key=lambda found: self.limit is not None and self.limit.allows(found[0]))
        told = ": ".join(telling[0]) if telling else ""
        if self.limit:
            told = f"{told} ({self.limit.row})".lstrip()
        case = self.case
        result = [summary(run["client"]) for run in (self.direct, self.proxied)]
        return [case.name, case.using, case.program, case.way, *result, gaps, self.verdict, told]


def summary(told: dict) -> str:
    """The answer in a few words."""
    words = [told.get(key) for key in ("failed", "status", "code", "error")]
    if "answers" in told:
        words.append(f"{len(told['answers'])} answers")
    return " ".join(str(word) for word in words if word is not None)[:40]


def print_table(rows: list[Row], path: str | None) -> None:
    lines = [HEADINGS, *[row.cells() for row in rows]]
    widths = [max(len(line[at]) for line in lines) for at in range(len(HEADINGS) - 1)]
    text = "\n".join("  ".join([*[cell.ljust(width) for cell, width in zip(line, widths)], line[-1]]).rstrip() for line in lines)
    counts = Counter(row.verdict for row in rows)
    seconds = sum(row.seconds for row in rows)
    slowest = ", ".join(f"{row.case.key} {row.seconds:.1f} s" for row in sorted(rows, key=lambda row: -row.seconds)[:5])
    total = f"{len(rows)} cases in {seconds:.0f} s: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    total += f"; slowest: {slowest}"
    print(f"{text}\n\n{total}")
    if path:
        with open(path, "w") as file:
            file.write(f"{text}\n\n{total}\n")
    for row in rows:
        if row.is_wrong:
            print(f"\n{row.case.key}\n  direct  {row.direct}\n  proxied {row.proxied}")
