"""The floor: fetch all pages with httpx, eight at once, and drop the bodies. ``fetch_httpx.py URL PAGES``."""

from __future__ import annotations

import asyncio
import sys

import httpx

CONNECTIONS = 8


async def main(url: str, pages: int) -> None:
    numbers = iter(range(pages))
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=CONNECTIONS), trust_env=False) as client:

        async def fetch() -> None:
            for number in numbers:
                answer = await client.get(f"{url}/neo/rest/v1/neo/browse", params={"page": number, "size": 20})
                answer.raise_for_status()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(CONNECTIONS):
                tasks.create_task(fetch())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
