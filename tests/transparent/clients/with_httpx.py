"""httpx, for HTTP/1.1 and HTTP/2."""

import ssl

import httpx

from clients.ask import Arrivals, Ask, Run, latin, parts


def told_of(response: httpx.Response) -> dict:
    told = {"status": response.status_code, "headers": latin(response.headers.raw), "version": response.http_version}
    if response.http_version == "HTTP/1.1":
        told["reason"] = response.extensions["reason_phrase"].decode("latin-1")
    return told


def with_httpx(run: Run, ask: Ask, follow: bool = False) -> dict:
    arrivals = Arrivals(run, ask)
    verify = ssl.create_default_context(cafile=run.target.ca) if run.target.tls else True
    h2 = run.target.speaks == "h2"
    body = ask.body if isinstance(ask.body, bytes | None) else parts(ask, run)
    told = {"error": None}
    with httpx.Client(http1=not h2, http2=h2, verify=verify, timeout=20, trust_env=False, follow_redirects=follow) as client:
        headers = [*ask.headers, run.marker]
        try:
            with client.stream(ask.method, run.target.base + ask.path, headers=headers, content=body) as response:
                told |= told_of(response)
                for part in response.iter_raw():
                    arrivals.came(part)
                    if ask.read == "leave":
                        break
                told["redirects"] = [told_of(earlier) for earlier in response.history]
        except httpx.HTTPError as error:
            told["error"] = type(error).__name__
    return told | arrivals.told()


def follow(run: Run, ask: Ask) -> dict:
    """Follows redirects."""
    return with_httpx(run, ask, follow=True)


def together(run: Run, ask: Ask) -> dict:
    """Twenty requests on one client, one behind the other: what each got."""
    h2 = run.target.speaks == "h2"
    verify = ssl.create_default_context(cafile=run.target.ca) if run.target.tls else True
    with httpx.Client(http1=not h2, http2=h2, verify=verify, timeout=20, trust_env=False) as client:
        answers = []
        for number in range(20):
            response = client.request("POST", run.target.base + ask.path, content=b"%d" % number, headers=[run.marker])
            answers.append((response.status_code, response.text))
    return {"answers": answers}
