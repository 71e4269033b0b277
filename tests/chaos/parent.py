"""A server without doors, to be SIGKILLed: two pools, one of whose workers has a child."""

from __future__ import annotations

import asyncio

from tests.listening import pool_of, say


async def main() -> None:
    async with pool_of("chaos", 2, wait=False) as chaos, pool_of("tone", 2, wait=False) as tone:
        while True:
            for pool in (chaos, tone):
                say(pool, "grandchild slow slow slow slow")
            await asyncio.sleep(0.3)


if __name__ == "__main__":
    asyncio.run(main())
