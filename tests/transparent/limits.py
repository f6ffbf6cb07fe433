"""What is known to differ, and why: the README has the same in its table of limits.

Each is a pattern of cases (`name (client, program, way)`), the places that may differ, and the reason. Of each of these cases something must
differ there, and nothing may differ anywhere else: a limit that is gone fails the test until it is taken out of here and of the README.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Limit:
    cases: str
    places: tuple[str, ...]
    reason: str

    def allows(self, place: str) -> bool:
        return any(fnmatchcase(place, pattern) for pattern in self.places)


ALL_OF_IT = ("client.*",)
NOT_FORWARDED = ("client.*", "upstream")

LIMITS = [
    # Errors that the proxy makes itself.
    Limit("upstream breaks before the head*h1>h1)", ALL_OF_IT, "an upstream that breaks off before its head is a 502"),
    Limit("upstream refuses the stream (*", ALL_OF_IT, "an upstream that breaks off before its head is a 502"),
    Limit("CONNECT (*", NOT_FORWARDED, "CONNECT is refused: this is no forward proxy"),
    # Rules of HTTP for intermediaries.
    Limit("target, absolute (*", ("upstream?0?.target", "upstream?0?.headers.host?0?"), "absolute-form goes on as origin-form (RFC 9112 §3.2)"),
    Limit("HTTP/1.0 without a host (*", ("upstream?0?.headers.host",), "the upstream is asked with HTTP/1.1, which needs a Host"),
    # hyper and what it stands on.
    Limit("target /caf\u00e9 (*", NOT_FORWARDED, "a target of bytes that aren't UTF-8 is a 400"),
    Limit("target /` (*", NOT_FORWARDED, "`, < and > in a path are a 400"),
    Limit("target /<a> (*", NOT_FORWARDED, "`, < and > in a path are a 400"),
    Limit('target /?"a" (*', NOT_FORWARDED, '", < and > in a query are a 400'),
    Limit("target /plain#part (*", ("upstream?0?.target",), "a fragment, which no target may have, is cut off"),
    Limit("answer /reason/latin (*", ("client.reason",), "a reason phrase with bytes above 0x7F arrives empty"),
    Limit("answer /100 (*", ("client.informational",), "a 100 that nobody expects doesn't go on"),
    Limit("names of headers as written (*", ("client.names*",), "names of headers go on in lower case"),
    Limit("upload in parts (curl, hypercorn, h1>h1)", ("client.informational?0??1?.*",), "100 goes on without headers"),
    Limit("trailers (*h1>h1)", ("client.trailers*",), "trailers need `te: trailers` of an HTTP/1.1 client"),
    Limit("trailers by curl (*h1>h1)", ("client.trailers*",), "trailers need `te: trailers` of an HTTP/1.1 client"),
    Limit("trailers only (*h1>h1)", ("client.trailers*",), "trailers need `te: trailers` of an HTTP/1.1 client"),
    Limit("answer /trailers (*", ("client.trailers*",), "trailers need `te: trailers` of an HTTP/1.1 client"),
    Limit("answer /trailers/unannounced (*", ("client.trailers*",), "trailers of HTTP/1.1 need to be announced by `trailer`"),
    Limit("trailers up (*2*>h1)", ("upstream?0?.trailers*",), "trailers of HTTP/1.1 need to be announced by `trailer`"),
    Limit("body, chunked, with trailers (*", ("upstream?0?.trailers.x-end",), "trailers of HTTP/1.1 need to be announced by `trailer`"),
]


def expected(key: str) -> Limit | None:
    """The known difference of a case."""
    return next((limit for limit in LIMITS if fnmatchcase(key, limit.cases)), None)
