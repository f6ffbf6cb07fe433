// Node's clients. Reads one ask per line on standard input, answers each with one line on standard output.
// Arguments: the file of the certificate authority.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import http from "node:http";
import http2 from "node:http2";
import https from "node:https";
import net from "node:net";
import readline from "node:readline";

const ca = readFileSync(process.argv[2]);

function board(ask, what) {
  const [host, port] = ask.board.split(":");
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = net.connect(Number(port), host, () => socket.write(JSON.stringify(what) + "\n"));
    socket.on("data", (part) => (answer += part));
    socket.on("end", () => resolve(JSON.parse(answer)));
    socket.on("error", reject);
  });
}

const mark = (ask, number) => board(ask, { mark: ask.run, number });
const waitFor = (ask, number) => board(ask, { wait: `${ask.run}/up`, number });

function digest(body) {
  if (body.length <= 160) return body.toString("latin1");
  return `${body.length} bytes ${createHash("sha256").update(body).digest("hex").slice(0, 16)}`;
}

function pairs(raw) {
  const list = [];
  for (let at = 0; at < raw.length; at += 2) if (!raw[at].startsWith(":")) list.push([raw[at].toLowerCase(), raw[at + 1]]);
  return list;
}

// Several lines of one name go as a list.
function grouped(headers) {
  const all = {};
  for (const [name, value] of headers) all[name] = name in all ? [].concat(all[name], value) : value;
  return all;
}

const bodies = (ask) => (ask.body ?? []).map((part) => Buffer.from(part, "base64"));

// The parts of a body as they come; whole events, where that is asked for, each told to the upstream.
class Arrivals {
  constructor(ask) {
    Object.assign(this, { ask, parts: [], events: [], gaps: [], rest: "", last: null, wanted: [] });
  }

  came(part) {
    part = Buffer.from(part);
    this.parts.push(part);
    for (const resolve of this.wanted.splice(0)) resolve();
    if (this.ask.read === "first" || this.ask.read === "leave") mark(this.ask, 1);
    if (this.ask.read !== "events") return;
    const events = (this.rest + part.toString("latin1")).split("\n\n");
    this.rest = events.pop();
    for (const event of events) {
      const now = performance.now();
      if (this.last !== null) this.gaps.push(now - this.last);
      this.last = now;
      this.events.push(event);
      mark(this.ask, this.events.length);
    }
  }

  // Until so many bytes have come.
  async until(size) {
    while (Buffer.concat(this.parts).length < size) await new Promise((resolve) => this.wanted.push(resolve));
  }

  told() {
    const told = { body: digest(Buffer.concat(this.parts)), gaps: this.gaps };
    if (this.ask.read === "events") told.events = this.events;
    return told;
  }
}

// Writes the parts of the body in the pace that is asked for, then ends.
async function send(ask, writer, arrivals) {
  let number = 0;
  let size = 0;
  for (const part of bodies(ask)) {
    writer.write(part);
    size += part.length;
    if (ask.paced) await waitFor(ask, ++number);
    if (ask.ping_pong) await arrivals.until(size);
  }
}

const clients = {
  async fetch(ask) {
    const arrivals = new Arrivals(ask);
    const leave = new AbortController();
    const told = { error: null };
    const init = { method: ask.method, headers: ask.headers, redirect: "manual", signal: leave.signal };
    if (ask.whole) init.body = bodies(ask)[0];
    else if (ask.body) {
      init.duplex = "half";
      init.body = new ReadableStream({
        async start(controller) {
          await send(ask, { write: (part) => controller.enqueue(part) }, arrivals);
          controller.close();
        },
      });
    }
    if (ask.leave_early) waitFor(ask, 1).then(() => leave.abort());
    try {
      const response = await fetch(ask.base + ask.path, init);
      Object.assign(told, { status: response.status, reason: response.statusText, headers: [...response.headers] });
      for await (const part of response.body ?? []) {
        arrivals.came(part);
        if (ask.read === "leave") leave.abort();
      }
    } catch (error) {
      told.error = `${error.name} ${error.cause?.code ?? ""}`.trim();
    }
    return { ...told, ...arrivals.told() };
  },

  http(ask) {
    const arrivals = new Arrivals(ask);
    const told = { error: null, informational: [] };
    const library = ask.base.startsWith("https") ? https : http;
    const headers = grouped(ask.headers);
    if (ask.whole) headers["content-length"] = bodies(ask)[0].length;
    if (ask.trailers.length) headers.trailer = ask.trailers.map(([name]) => name).join(", ");
    const url = new URL(ask.base);
    const { hostname: host, port } = url;
    return new Promise((resolve) => {
      const request = library.request({ host, port, path: ask.path, ca, method: ask.method, headers, agent: false });
      const done = (error) => {
        told.error ??= error?.code ?? null;
        resolve({ ...told, ...arrivals.told() });
      };
      request.on("information", ({ statusCode, rawHeaders }) => {
        told.informational.push([statusCode, pairs(rawHeaders)]);
        mark(ask, told.informational.length);
      });
      request.on("error", done);
      request.on("response", (response) => {
        Object.assign(told, { status: response.statusCode, reason: response.statusMessage, version: response.httpVersion });
        told.headers = pairs(response.rawHeaders);
        response.on("data", (part) => {
          arrivals.came(part);
          if (ask.read === "leave") request.destroy();
        });
        response.on("error", done);
        response.on("end", () => {
          told.trailers = pairs(response.rawTrailers);
          done();
        });
        response.on("close", () => done());
      });
      if (ask.leave_early) waitFor(ask, 1).then(() => request.destroy());
      const expects = ask.headers.some(([name]) => name === "expect");
      const go = () =>
        send(ask, request, arrivals).then(() => {
          if (ask.trailers.length) request.addTrailers(ask.trailers);
          request.end();
        });
      if (expects) request.on("continue", go);
      else go();
      if (expects || ask.body) request.flushHeaders();
    });
  },

  async http2(ask) {
    const session = http2.connect(ask.base, { ca });
    session.on("error", () => {});
    const told = await stream(session, ask);
    session.destroy();
    return told;
  },

  // Twenty at once on one connection.
  async streams(ask) {
    const session = http2.connect(ask.base, { ca });
    const asks = Array.from({ length: 20 }, (_, n) => ({ ...ask, body: [Buffer.from(`${n} `.repeat(n * 1000)).toString("base64")] }));
    const answers = await Promise.all(asks.map((one) => stream(session, one)));
    session.destroy();
    return { answers: answers.map(({ status, body, error }) => [status, body, error]) };
  },

  // An upgrade; then bytes go to and fro.
  upgrade(ask) {
    const url = new URL(ask.base);
    const headers = { ...grouped(ask.headers), connection: "upgrade", upgrade: "echo" };
    const request = http.request({ host: url.hostname, port: url.port, path: ask.path, headers, agent: false });
    request.end();
    return new Promise((resolve) => {
      request.on("error", (error) => resolve({ error: error.code }));
      request.on("response", (response) => resolve({ status: response.statusCode, headers: pairs(response.rawHeaders) }));
      request.on("upgrade", async (response, socket, head) => {
        const arrivals = new Arrivals(ask);
        arrivals.came(head);
        socket.on("data", (part) => arrivals.came(part));
        const over = new Promise((closed) => socket.on("close", closed));
        await arrivals.until(6);
        for (const word of ["one ", "two "]) {
          const before = Buffer.concat(arrivals.parts).length;
          socket.write(word);
          await arrivals.until(before + word.length);
        }
        socket.end();
        await over;
        resolve({ status: response.statusCode, reason: response.statusMessage, headers: pairs(response.rawHeaders), ...arrivals.told() });
      });
    });
  },
};

function stream(session, ask) {
  const arrivals = new Arrivals(ask);
  const told = { error: null, informational: [] };
  const headers = { ":method": ask.method, ":path": ask.path, ...grouped(ask.headers) };
  return new Promise((resolve) => {
    const request = session.request(headers, { endStream: !ask.body, waitForTrailers: ask.trailers.length > 0 });
    request.on("wantTrailers", () => request.sendTrailers(grouped(ask.trailers)));
    request.on("headers", (_, flags, raw) => {
      told.informational.push([Number(raw[raw.indexOf(":status") + 1]), pairs(raw)]);
      mark(ask, told.informational.length);
    });
    const go = () => send(ask, request, arrivals).then(() => request.end());
    if (ask.headers.some(([name]) => name === "expect")) request.on("continue", go);
    else if (ask.body) go();
    request.on("response", (head, flags, raw) => {
      told.status = head[":status"];
      told.headers = pairs(raw);
    });
    request.on("data", (part) => {
      arrivals.came(part);
      if (ask.read === "leave") request.close(http2.constants.NGHTTP2_CANCEL);
    });
    if (ask.leave_early) waitFor(ask, 1).then(() => request.close(http2.constants.NGHTTP2_CANCEL));
    request.on("trailers", (_, flags, raw) => (told.trailers = pairs(raw)));
    request.on("error", (error) => (told.error = error.code));
    request.on("close", () => resolve({ ...told, code: request.rstCode, ...arrivals.told() }));
  });
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const ask = JSON.parse(line);
  const late = new Promise((resolve) => setTimeout(resolve, ask.patience * 1000, { error: "nothing more came" }).unref());
  const told = await Promise.race([clients[ask.kind](ask), late]).catch((error) => ({ error: `${error.name}: ${error.message}` }));
  process.stdout.write(JSON.stringify(told) + "\n");
}
