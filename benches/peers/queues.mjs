// Throughput of queues for Node.js: `node queues.mjs NAME ADDRESS` prints a row of the table.
//
// In batches: four loops create 100 tasks at once, and tasks are done that do nothing, as their queue does them best.
// One at a time: 32 connections ask a minimal HTTP server to create a task, and each waits until a worker in the same
// process has done it. That server does less than ours does: it neither knows callers nor hands claims to anybody outside.
import http from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'

const BATCH = 100
const BATCHES = 100
const LOOPS = 4
const CONNECTIONS = 32
const SINGLE = 5_000
const PAYLOAD = { path: 'docs/guide/first-steps.md', commit: '0123456789abcdef' }

const [name, address] = process.argv.slice(2)

/** Each queue: `createMany`, `create`, `done(count)` (resolves when so many were done), and for pg-boss `cycle`. */
const queues = {
  async graphile() {
    const { Logger, makeWorkerUtils, run } = await import('graphile-worker')
    const pg = (await import('pg')).default
    const pool = new pg.Pool({ connectionString: address, max: 20 })
    pool.on('error', error => console.error(error))
    // A line for each task would be most of what it does.
    const logger = new Logger(() => () => {})
    const utils = await makeWorkerUtils({ pgPool: pool, logger })
    await utils.migrate()
    const counter = new Counter()
    const runner = await run({
      pgPool: pool,
      crontab: '',
      pollInterval: 50,
      noHandleSignals: true,
      taskList: { work: async payload => counter.done(payload.number) },
      preset: { worker: { logger, concurrentJobs: BATCH, localQueue: { size: 500 }, completeJobBatchDelay: 0 } },
    })
    return {
      storage: 'PostgreSQL',
      counter,
      createMany: count =>
        utils.addJobs(Array.from({ length: count }, () => ({ identifier: 'work', payload: PAYLOAD }))),
      create: number => utils.addJob('work', { ...PAYLOAD, number }),
      async rest() {
        // A task is done for us when its row is gone.
        for (;;) {
          const { rows } = await pool.query('select 1 from graphile_worker._private_jobs limit 1')
          if (rows.length === 0) return
          await sleep(5)
        }
      },
      end: () => runner.stop(),
    }
  },
  async pgboss() {
    const { PgBoss } = await import('pg-boss')
    const boss = new PgBoss({ connectionString: address, max: 12, supervise: false, schedule: false })
    boss.on('error', error => console.error(error))
    await boss.start()
    await boss.createQueue('work')
    await boss.createQueue('single')
    const counter = new Counter()
    const cycle = async () => {
      await boss.insert('work', Array.from({ length: BATCH }, () => ({ data: PAYLOAD })))
      const jobs = await boss.fetch('work', { batchSize: BATCH })
      await boss.complete('work', jobs.map(job => job.id))
      return jobs.length
    }
    return {
      storage: 'PostgreSQL',
      counter,
      cycle,
      // No loop that polls twice a second: each request does the whole way of one task.
      async single() {
        await boss.send('single', PAYLOAD)
        const [job] = await boss.fetch('single')
        if (job) await boss.complete('single', job.id)
      },
      async rest() {},
      end: () => boss.stop({ graceful: false }),
    }
  },
  async bullmq() {
    const { Queue, Worker } = await import('bullmq')
    const connection = { path: address, maxRetriesPerRequest: null }
    const queue = new Queue('work', { connection, defaultJobOptions: { removeOnComplete: true } })
    const counter = new Counter()
    const worker = new Worker('work', async job => counter.done(job.data.number), { connection, concurrency: BATCH })
    await worker.waitUntilReady()
    return {
      storage: 'Redis',
      counter,
      createMany: count => queue.addBulk(Array.from({ length: count }, () => ({ name: 'work', data: PAYLOAD }))),
      create: number => queue.add('work', { ...PAYLOAD, number }),
      async rest() {
        while ((await queue.getJobCountByTypes('active', 'waiting')) > 0) await sleep(5)
      },
      async end() {
        await worker.close()
        await queue.close()
      },
    }
  },
}

class Counter {
  count = 0
  #waiting = new Map()

  /** One task was done. */
  done(number) {
    this.count += 1
    this.#waiting.get(number)?.()
    this.#waiting.delete(number)
  }

  /** Resolves when the task with this number was done. */
  of(number) {
    return new Promise(resolve => this.#waiting.set(number, resolve))
  }
}

async function inParallel(hands, count, work) {
  let next = 0
  const hand = async () => {
    while (next < count) {
      next += 1
      await work(next)
    }
  }
  await Promise.all(Array.from({ length: hands }, hand))
}

async function perSecond(count, work) {
  const began = performance.now()
  await work()
  return count / ((performance.now() - began) / 1_000)
}

async function inBatches(queue) {
  if (queue.cycle) {
    let done = 0
    return perSecond(BATCH * BATCHES, async () => {
      await inParallel(LOOPS, BATCHES, async () => (done += await queue.cycle()))
      while (done < BATCH * BATCHES) done += await queue.cycle()
    })
  }
  return perSecond(BATCH * BATCHES, async () => {
    await inParallel(LOOPS, BATCHES, () => queue.createMany(BATCH))
    while (queue.counter.count < BATCH * BATCHES) await sleep(1)
    await queue.rest()
  })
}

async function overHttp(queue) {
  let number = 0
  const server = http.createServer(async (request, answer) => {
    for await (const _part of request);
    if (queue.single) {
      await queue.single()
    } else {
      const own = `task ${(number += 1)}`
      const done = queue.counter.of(own)
      await queue.create(own)
      await done
    }
    answer.end('{}')
  })
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  const agent = new http.Agent({ keepAlive: true, maxSockets: CONNECTIONS })
  const ask = () =>
    new Promise((resolve, reject) => {
      const options = { port: server.address().port, host: '127.0.0.1', method: 'POST', agent }
      const request = http.request(options, answer => answer.resume().on('end', resolve))
      request.on('error', reject).end(JSON.stringify(PAYLOAD))
    })
  const rate = await perSecond(SINGLE, async () => {
    await inParallel(CONNECTIONS, SINGLE, ask)
    await queue.rest()
  })
  agent.destroy()
  server.close()
  return rate
}

const queue = await queues[name]()
const batches = await inBatches(queue)
const single = await overHttp(queue)
const labels = { graphile: 'graphile-worker', pgboss: 'pg-boss', bullmq: 'BullMQ' }
console.log(`| ${labels[name]} | ${queue.storage} | ${batches.toFixed(0)} | ${single.toFixed(0)} |`)
await queue.end()
process.exit(0)
