"""What is known to differ: the rows of the README's table "Transparent, exactly", and the cases that show each.

A limit names its row by the row's first cell. Its cases are patterns (`name (client, program, way)`), with the places that may differ. Of
each of these cases something must differ there, and nothing may differ anywhere else; each limit needs a case, and each row a limit. So a
limit that is gone fails the test until it is taken out of here and of the README.
"""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


@dataclass(frozen=True)
class Limit:
    row: str
    cases: str
    places: tuple[str, ...]

    def allows(self, place: str) -> bool:
        return any(fnmatchcase(place, pattern) for pattern in self.places)


ALL_OF_IT = ("client.*",)
NOT_FORWARDED = ("client.*", "upstream")
HELD_BACK = ("client.informational*", "client.body", "client.headers.content-length")

NAMES = "names of HTTP/1 headers"
TRAILERS_DOWN = "trailers of a response, to an HTTP/1.1 client"
TRAILERS_UP = "trailers of a request, to an HTTP/1.1 upstream"
INTERIM = "interim responses (1xx)"
TARGET = "a target with bytes that no URI may have, such as `` ` ``, `<` or Latin-1"
BROKEN_OFF = "an upstream that breaks off before its head"

LIMITS = [
    Limit(NAMES, "names of headers as written (*", ("client.names*",)),
    Limit(TRAILERS_DOWN, "trailers (*h1>h1)", ("client.trailers*",)),
    Limit(TRAILERS_DOWN, "trailers by curl (*h1>h1)", ("client.trailers*",)),
    Limit(TRAILERS_DOWN, "trailers only (*h1>h1)", ("client.trailers*",)),
    Limit(TRAILERS_DOWN, "answer /trailers (*", ("client.trailers*",)),
    Limit(TRAILERS_DOWN, "answer /trailers/unannounced (*", ("client.trailers*",)),
    Limit(TRAILERS_UP, "trailers up (*2*>h1)", ("upstream?0?.trailers*",)),
    Limit(TRAILERS_UP, "body, chunked, with trailers (*", ("upstream?0?.trailers.x-end",)),
    Limit(INTERIM, "upload in parts (curl, hypercorn, h1>h1)", ("client.informational?0??1?.*",)),
    Limit(INTERIM, "answer /100 (*", ("client.informational",)),
    Limit(INTERIM, "103 (*2*", HELD_BACK),
    Limit(INTERIM, "103 (*tls)", HELD_BACK),
    Limit(INTERIM, "100-continue (*h2>*", ("client.*", "upstream*")),
    Limit("a reason phrase with bytes above 0x7F", "answer /reason/latin (*", ("client.reason",)),
    Limit(TARGET, "target /caf\u00e9 (*", NOT_FORWARDED),
    Limit(TARGET, "target /` (*", NOT_FORWARDED),
    Limit(TARGET, "target /<a> (*", NOT_FORWARDED),
    Limit(TARGET, 'target /?"a" (*', NOT_FORWARDED),
    Limit("a fragment in a request's target", "target /plain#part (*", ("upstream?0?.target",)),
    Limit("absolute-form targets", "target, absolute (*", ("upstream?0?.target", "upstream?0?.headers.host*")),
    Limit("a request of HTTP/1.0 without `Host`", "HTTP/1.0 without a host (*", ("upstream?0?.headers.host",)),
    Limit("several `Cookie` lines of HTTP/2", "cookie crumbs (*", ("upstream?0?.headers.cookie*",)),
    Limit("`Content-Length` beside `Transfer-Encoding`", "answer /both (*", ("client.headers.content-length",)),
    Limit("`CONNECT`, HTTP/2's extended `CONNECT`, `Upgrade: h2c`", "CONNECT (*", NOT_FORWARDED),
    Limit("an answer that is complete before its request", "response before the request's end (*", ("client.second.*", "upstream*")),
    Limit("a client that closes its half after the request", "half-close, and a long wait (*", ("client.*",)),
    Limit(BROKEN_OFF, "upstream breaks before the head*h1>h1)", ALL_OF_IT),
    # What the upstream says that it did not begin is asked for once more where that can't be seen (RFC 9113 §8.7).
    Limit(BROKEN_OFF, "upstream refuses the stream (*", ("client.*", "upstream*")),
]


def expected(key: str) -> Limit | None:
    """The known difference of a case."""
    return next((limit for limit in LIMITS if fnmatchcase(key, limit.cases)), None)


def unlike_the_readme() -> set[str]:
    """Rows that only the README has, or only this list."""
    table = re.search(r"### Transparent, exactly\n(.*?)\n### ", README.read_text(), re.DOTALL)[1]
    # A cell may have a bar of its own, but none has one with spaces around it.
    rows = [line.removeprefix("| ").split(" | ")[0] for line in table.splitlines() if line.startswith("| ")]
    return set(rows[1:]) ^ {limit.row for limit in LIMITS}
