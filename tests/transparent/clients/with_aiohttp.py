"""aiohttp."""

import asyncio

import aiohttp

from clients.ask import Arrivals, Ask, Run, latin, parts


async def _parts(ask: Ask, run: Run):
    for part in parts(ask, run):
        yield part
        # The part goes out before the pace is waited for, which blocks this loop.
        await asyncio.sleep(0)


async def _ask(run: Run, ask: Ask) -> dict:
    arrivals = Arrivals(run, ask)
    told = {"error": None}
    body = ask.body if isinstance(ask.body, bytes | None) else _parts(ask, run)
    headers = [*ask.headers, run.marker]
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(auto_decompress=False, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
        try:
            url = run.target.base + ask.path
            async with session.request(ask.method, url, headers=headers, data=body, allow_redirects=False) as response:
                told |= {"status": response.status, "reason": response.reason, "headers": latin(response.raw_headers)}
                told["version"] = f"{response.version.major}.{response.version.minor}"
                async for part in response.content.iter_any():
                    arrivals.came(part)
                    if ask.read == "leave":
                        break
        except aiohttp.ClientError as error:
            told["error"] = type(error).__name__
    return told | arrivals.told()


def with_aiohttp(run: Run, ask: Ask) -> dict:
    return asyncio.run(_ask(run, ask))
