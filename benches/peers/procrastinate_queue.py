"""Throughput of procrastinate: prints a row of the table (see `queues.mjs`; it has no figure over HTTP)."""
import asyncio
import sys
import time

import procrastinate

BATCH, BATCHES, LOOPS = 100, 20, 4
PAYLOAD = {"path": "docs/guide/first-steps.md", "commit": "0123456789abcdef"}

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=sys.argv[1]))
done = 0


@app.task(name="work")
async def work(**_payload):
    global done
    done += 1


async def main():
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        worker = asyncio.create_task(app.run_worker_async(concurrency=BATCH, install_signal_handlers=False))
        began = time.monotonic()

        async def create(batches):
            for _ in range(batches):
                await app.configure_task("work").batch_defer_async(*([PAYLOAD] * BATCH))

        await asyncio.gather(*(create(BATCHES // LOOPS) for _ in range(LOOPS)))
        while done < BATCH * BATCHES:
            await asyncio.sleep(0.005)
        rate = BATCH * BATCHES / (time.monotonic() - began)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    print(f"| procrastinate | PostgreSQL | {rate:.0f} | - |")


asyncio.run(main())
