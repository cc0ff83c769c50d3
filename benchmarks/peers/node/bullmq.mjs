// BullMQ: `queue.addBulk`, and a `Worker` that removes jobs when they are done.
// The command line is that of the Python drivers, see ../driver.py.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { isMainThread, parentPort, workerData, Worker as Thread } from "node:worker_threads";
import { Queue, Worker } from "bullmq";

const SUBMITTERS = 32;
const STALLED = 12_000;
const SETTLING = 0.5;
const OPTIONS = { removeOnComplete: true, removeOnFail: false };

const now = () => (performance.timeOrigin + performance.now()) / 1000;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const say = (answer) =>
  new Promise((resolve) => process.stdout.write(`${JSON.stringify(answer)}\n`, resolve));

function connection(url) {
  const { hostname, port } = new URL(url);
  return { host: hostname, port: Number(port), maxRetriesPerRequest: null };
}

async function submit(url, count) {
  const queue = new Queue("peers", { connection: connection(url), defaultJobOptions: OPTIONS });
  await queue.waitUntilReady();
  const payloads = Array.from({ length: count }, (_, n) => String(n).padStart(20, "0"));
  const start = performance.now();
  for (let first = 0; first < count; first += 1000) {
    const some = payloads.slice(first, first + 1000);
    await queue.addBulk(some.map((payload) => ({ name: "nothing", data: { payload } })));
  }
  return { seconds: (performance.now() - start) / 1000 };
}

const starts = [];
const payloads = [];

async function report(first, wanted) {
  let known = starts.length;
  let since = performance.now();
  while (starts.length < first + wanted && performance.now() - since < STALLED) {
    await sleep(20);
    if (starts.length > known) {
      known = starts.length;
      since = performance.now();
    }
  }
  const end = starts.length;
  await say({ starts: starts.slice(first, end), payloads: payloads.slice(first, end) });
  return end;
}

async function work(url, wanted, concurrency) {
  const nothing = async (job) => {
    starts.push(now());
    payloads.push(job.data.payload);
  };
  const worker = new Worker("peers", nothing, { connection: connection(url), concurrency });
  worker.on("error", (error) => process.stderr.write(`${error}\n`));
  let first = wanted === null ? 0 : await report(0, wanted);
  for await (const line of createInterface({ input: process.stdin })) {
    first = await report(first, Number(line));
  }
  process.exit(0);
}

// A thread that waits exactly: timers of the event loop fire up to a millisecond late.
function pace() {
  const cell = new Int32Array(new SharedArrayBuffer(4));
  const begin = now() + 0.1;
  for (const offset of workerData.offsets) {
    const due = begin + offset;
    const wait = (due - now()) * 1000;
    if (wait > 0) Atomics.wait(cell, 0, 0, wait);
    parentPort.postMessage(due);
  }
}

function poisson(rate, seconds, seed) {
  let state = seed >>> 0;
  const random = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
  const offsets = [];
  for (let at = 0; ; ) {
    at -= Math.log(1 - random()) / rate;
    if (at >= seconds) return offsets;
    offsets.push(at);
  }
}

async function load(url, rate, seconds, seed) {
  const queue = new Queue("peers", { connection: connection(url), defaultJobOptions: OPTIONS });
  await queue.waitUntilReady();
  let begin = now() + 0.1;
  let sent = 0;
  const slips = [];
  const add = (due) => {
    if (due >= begin + SETTLING) slips.push(now() - due);
    const start = String(Math.round(due * 1e6)).padStart(16, "0");
    const payload = start + String(++sent % 10_000).padStart(4, "0");
    return queue.add("nothing", { payload });
  };
  if (rate <= 0) {
    await sleep((begin - now()) * 1000);
    const submitter = async () => {
      while (now() < begin + seconds) await add(now());
    };
    await Promise.all(Array.from({ length: SUBMITTERS }, submitter));
  } else {
    const offsets = poisson(rate, seconds, seed);
    const waiting = [];
    let running = 0;
    let done = 0;
    await new Promise((resolve, reject) => {
      const submitter = async () => {
        running += 1;
        while (waiting.length) {
          await add(waiting.shift());
          done += 1;
        }
        running -= 1;
        if (done === offsets.length) resolve();
      };
      const thread = new Thread(new URL(import.meta.url), { workerData: { offsets } });
      thread.once("message", (due) => (begin = due));
      thread.on("message", (due) => {
        waiting.push(due);
        if (running < SUBMITTERS) submitter().catch(reject);
      });
    });
  }
  slips.sort((a, b) => a - b);
  const at = (share) => slips[Math.floor(slips.length * share)] ?? 0;
  return { sent, begin, slip_p99: at(0.99) };
}

async function main([command, url, ...words]) {
  if (command === "about") {
    const find = createRequire(import.meta.url);
    const version = (name) => find(`${name}/package.json`).version;
    return { bullmq: version("bullmq"), ioredis: version("ioredis"), node: process.versions.node };
  }
  const numbers = words.map(Number);
  if (command === "work") return work(url, numbers[0], numbers[1]);
  if (command === "serve") return work(url, null, numbers[0]);
  process.stdin.on("end", () => process.exit(1)).resume();
  return command === "submit" ? submit(url, numbers[0]) : load(url, ...numbers);
}

if (!isMainThread) {
  pace();
} else {
  await say(await main(process.argv.slice(2)));
  process.exit(0);
}
