"""Two runs of a case: what is left out of the comparison, and what differs."""

import json
import statistics

from cases.case import Case
from clients.ask import Target

# Of one connection (RFC 9110 §7.6.1); the framing is compared by itself, and upgrades by what they do.
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "proxy-authenticate", "proxy-authorization"}
# What the proxy adds, as its configuration says.
ADDED = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}
# Different in each run.
RUN = {"x-run", "sec-websocket-key"}
# A body of unknown length is chunked to whoever understands that, and else ends with the connection.
UNKNOWN_LENGTH = {"chunked": "unknown length", "close": "unknown length"}
VERSIONS_OF_HYPERCORN = ("hypercorn-h11", "hypercorn-h2")
# Medians of gaps, in ms: far above what a busy machine adds, and below the gap itself.
TOLERANCE = 25
# How much later an upstream may hear of the end, in s: it is a matter of ms where nothing is held back.
LATE = 1.0


def headers(pairs: list, request: bool) -> dict:
    """Each name with its values in their order. `te: trailers` is end to end here: trailers are."""
    named = {name.strip().lower() for key, value in pairs if key == "connection" for name in value.split(",")}
    kept = {}
    for name, value in pairs:
        if name in HOP_BY_HOP | RUN or (request and name in ADDED) or (name in named and name != "te"):
            continue
        if name == "te":
            # Only this of it goes on.
            if "trailers" not in value:
                continue
            value = "trailers"
        if name == "date":
            value = "(a date)"
        kept.setdefault(name, []).append(value)
    return kept


def normal(told, request: bool = False):
    """What is compared of what a client or an upstream told."""
    if isinstance(told, list):
        return [normal(one, request) for one in told]
    if not isinstance(told, dict):
        return told
    made = {}
    for key, value in told.items():
        if key in ("headers", "trailers", "initial", "trailing") and value is not None:
            made[key] = headers(value, request)
        elif key == "informational":
            made[key] = [[status, headers(pairs, request)] for status, pairs in value]
        elif key == "version":
            # 1.0 or 1.1 is told to each neighbour by itself.
            made[key] = value.removeprefix("HTTP/").split(".")[0]
        elif key == "framing":
            made[key] = UNKNOWN_LENGTH.get(value, value)
        elif key in ("answers", "redirects"):
            made[key] = [normal(one, request) for one in value]
        else:
            made[key] = value
    return made


def framing(note: dict) -> dict:
    """How the upstream saw the body of an HTTP/1.1 request framed."""
    names = {name for name, _ in note.get("headers", [])}
    how = "chunked" if "transfer-encoding" in names else "length" if "content-length" in names else "none"
    return {"framing": how} | note


def of_run(client: dict, notes: list[dict], target: Target, case: Case) -> dict:
    """One run, ready to be compared: the same text for the address that the client was given."""
    both_h1 = case.speaks == case.to_upstream == "h1"
    seen = [normal(framing(note) if both_h1 else note, request=True) for note in notes]
    if case.speaks != case.to_upstream:
        # What only one of the versions has; Hypercorn names the version in `server`.
        client = {key: value for key, value in client.items() if key not in ("version", "reason", "code")}
        for note in seen:
            note.pop("code", None)
    # Of requests at once, no order is promised.
    seen.sort(key=lambda note: json.dumps(note, sort_keys=True))
    text = json.dumps({"client": normal(client), "upstream": seen})
    for own in (target.authority, target.address, *VERSIONS_OF_HYPERCORN):
        text = text.replace(own, "(own name)")
    return json.loads(text)


def differences(direct, proxied, path: str = "") -> list[tuple[str, str]]:
    """Every place where the runs differ, and how."""
    if type(direct) is type(proxied) is dict:
        return [found for key in direct | proxied for found in differences(direct.get(key), proxied.get(key), f"{path}.{key}".lstrip("."))]
    if type(direct) is type(proxied) is list and len(direct) == len(proxied):
        return [found for at, pair in enumerate(zip(direct, proxied)) for found in differences(*pair, f"{path}[{at}]")]
    return [] if direct == proxied else [(path, f"{short(direct)} | {short(proxied)}")]


def short(value) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."


def gap(gaps: list[float]) -> float | None:
    return statistics.median(gaps) if gaps else None
