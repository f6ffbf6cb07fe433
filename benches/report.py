"""Medians, ratios, tables, and whether the goals of the performance budget hold."""

import statistics


class Results:
    """What the rounds of all figures gave: `rows[figure][subject]` is a list of dictionaries, one for each round."""

    def __init__(self):
        self.rows = {}
        self.faults = {}
        self.fdatasyncs = []

    @property
    def fdatasync_us(self):
        return statistics.median(self.fdatasyncs)

    def add(self, figure, subject, row):
        self.rows.setdefault(figure, {}).setdefault(subject, []).append(row)

    def derive_added(self):
        """Latency minus that of `direct` in the same round."""
        for figure in ("latency", "paced"):
            subjects = self.rows.get(figure, {})
            for name, rows in subjects.items():
                for row, direct in zip(rows, subjects.get("direct", [])):
                    if name != "direct":
                        row["added_p50_us"] = row["p50_us"] - direct["p50_us"]
                        row["added_p99_us"] = row["p99_us"] - direct["p99_us"]

    def median(self, figure, subject, key):
        values = [row[key] for row in self.rows.get(figure, {}).get(subject, []) if row.get(key) is not None]
        return statistics.median(values) if values else None

    def ratio(self, figure, subject, base, key):
        """The median of the rounds' ratios: what drifts with the machine drifts in both. Differences have a ratio of medians: near
        zero, that of a single round says nothing."""
        if key.startswith("added"):
            a, b = self.median(figure, subject, key), self.median(figure, base, key)
            return a / b if a is not None and (b or 0) > 0 else None
        subjects = self.rows.get(figure, {})
        pairs = zip(subjects.get(subject, []), subjects.get(base, []))
        values = [a[key] / b[key] for a, b in pairs if a.get(key) is not None and (b.get(key) or 0) > 0]
        return statistics.median(values) if values else None


def number(value, digits):
    return "" if value is None else f"{value:,.{digits}f}"


def table(figure, results, absent):
    """The figure as a Markdown table."""
    compared = next(heading for key, heading, _ in figure.columns if key == figure.compared)
    headings = ["", *(heading for _, heading, _ in figure.columns), f"offramp / this, {compared}"]
    lines = []
    for name in figure.subjects:
        if name in absent:
            lines.append([name, "absent"] + [""] * (len(headings) - 2))
            continue
        fault = results.faults.get((figure.name, name))
        if not results.rows.get(figure.name, {}).get(name):
            if fault:
                lines.append([name, "failed, see below"] + [""] * (len(headings) - 2))
            continue
        cells = [number(results.median(figure.name, name, key), digits) for key, _, digits in figure.columns]
        mine = "offramp captured" if figure.name == "captured" else "offramp"
        ratio = None if name == mine else results.ratio(figure.name, mine, name, figure.compared)
        lines.append([name, *cells, number(ratio, 2)])
    widths = [max(len(line[i]) for line in [headings, *lines]) for i in range(len(headings))]
    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]

    def join(cells):
        padded = [cells[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:])]
        return "| " + " | ".join(padded) + " |"

    return "\n".join([f"### {figure.title}", f"{figure.note}.", "", join(headings), join(rule), *map(join, lines)])


def goals(results):
    """(figure, goal, measured, limit, at most?) for each goal of the budget that these figures can judge."""
    median, ratio = results.median, results.ratio

    def times(factor, value):
        return None if value is None else factor * value

    added = {name: median("latency", name, "added_p50_us") for name in ("offramp", "offramp captured", "nginx")}
    allowed = None if added["nginx"] is None else added["nginx"] + 2 * results.fdatasync_us
    up, down = ratio("bodies", "offramp", "nginx", "up_mb"), ratio("bodies", "offramp", "nginx", "down_mb")
    kept_rps = ratio("captured", "offramp captured", "nginx mirror", "rps")
    return [
        ("requests", "pass-through CPU / nginx", ratio("requests", "offramp", "nginx", "cpu_us"), 1.0, True),
        ("requests", "pass-through CPU / envoy", ratio("requests", "offramp", "envoy", "cpu_us"), 0.42, True),
        ("captured", "captured CPU / nginx mirror", ratio("captured", "offramp captured", "nginx mirror", "cpu_us"), 0.6, True),
        ("captured", "captured CPU / envoy mirror", ratio("captured", "offramp captured", "envoy mirror", "cpu_us"), 0.45, True),
        ("captured", "captured requests/s / nginx mirror", kept_rps, 2.0, False),
        ("latency", "pass-through added p50 µs, to 1.05 x nginx's", added["offramp"], times(1.05, added["nginx"]), True),
        ("latency", "captured added p50 µs, to nginx's + 2 fdatasync", added["offramp captured"], allowed, True),
        ("paced", "added p50 per event µs, to nginx's", *(median("paced", name, "added_p50_us") for name in ("offramp", "nginx")), True),
        ("events", "events/s flat out", median("events", "offramp", "eps"), 1_000_000, False),
        ("bodies", "64 MB down / nginx", down, 1.3, False),
        ("bodies", "64 MB up / nginx", up, 1.3, False),
        ("bodies", "64 MB: memory grown by MB", median("bodies", "offramp", "grown_mb"), 16, True),
        ("memory", "idle process MB", median("memory", "offramp", "idle_mb"), 15, True),
        ("memory", "KB per idle connection, all at once", median("memory", "offramp", "kb_at_once"), 20, True),
    ]


def verdicts(results, measured):
    lines = ["### Goals", "", "| goal | measured | limit | |", "|---|--:|--:|---|"]
    for figure, goal, value, limit, at_most in goals(results):
        if figure not in measured:
            continue
        if value is None or limit is None:
            lines.append(f"| {goal} | | | not measured |")
            continue
        holds = value <= limit if at_most else value >= limit
        digits = 0 if limit >= 1000 else 1 if limit >= 10 else 2
        sign = "at most" if at_most else "at least"
        lines.append(f"| {goal} | {value:,.{digits}f} | {sign} {limit:,.{digits}f} | {'holds' if holds else '**missed**'} |")
    return "\n".join(lines)
