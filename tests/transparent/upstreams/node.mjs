// The service on Node: one handler behind http, http2 without TLS and http2 with TLS (which speaks HTTP/1.1 too).
// Arguments: the board's address, certificate, key. Prints a line of JSON with its addresses.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import http from "node:http";
import http2 from "node:http2";
import net from "node:net";

const [board, certFile, keyFile] = process.argv.slice(2);
const [boardHost, boardPort] = board.split(":");

// One question to the board.
function ask(what) {
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = net.connect(Number(boardPort), boardHost, () => socket.write(JSON.stringify(what) + "\n"));
    socket.on("data", (part) => (answer += part));
    socket.on("end", () => resolve(JSON.parse(answer)));
    socket.on("error", reject);
  });
}

function digest(body) {
  if (body.length <= 160) return body.toString("latin1");
  return `${body.length} bytes ${createHash("sha256").update(body).digest("hex").slice(0, 16)}`;
}

// [name, value, name, value] as pairs. Header bytes come as Latin-1 from http, and the pseudo-headers of HTTP/2 are not headers.
function pairs(raw) {
  const list = [];
  for (let at = 0; at < raw.length; at += 2) {
    const name = raw[at].toLowerCase();
    if (name === ":authority") list.push(["host", raw[at + 1]]);
    else if (!name.startsWith(":")) list.push([name, raw[at + 1]]);
  }
  return list;
}

// Reads the request to its end, or to that of its connection: after the response Node tells a request of that no more.
const read = (request) =>
  new Promise((resolve) => {
    if (request.readableEnded || request.destroyed || request.socket.destroyed) return resolve();
    request.on("end", resolve);
    request.on("close", resolve);
    if (!request.stream) request.socket.on("close", resolve);
    request.resume();
  });

const written = (response, data) => new Promise((resolve) => response.write(data, resolve));

const handlers = {
  "/json": (request, response) => {
    const body = Buffer.from(JSON.stringify({ text: "naïve – 日本", number: 1.5 }));
    response.writeHead(200, { "content-type": "application/json", "content-length": body.length });
    response.end(request.method === "HEAD" ? undefined : body);
  },
  "/echo": async (request, response, seen) => {
    await read(request);
    response.writeHead(200, { "content-type": request.headers["content-type"] ?? "text/plain", "x-method": request.method });
    response.end(seen.bytes());
  },
  "/length": async (request, response, seen) => {
    await read(request);
    response.writeHead(200, { "content-length": seen.bytes().length });
    response.end(seen.bytes());
  },
  "/live/echo": (request, response) => {
    response.writeHead(200, { "content-type": "text/plain" });
    request.on("data", (part) => response.write(part));
    request.on("end", () => response.end());
    return new Promise((resolve) => response.on("close", resolve));
  },
  "/events": async (request, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    for (let number = 1; number <= 5; number++) {
      await written(response, `id: ${number}\ndata: event ${number}\n\n`);
      if (!(await ask({ wait: request.headers["x-run"], number }))) break;
    }
    response.end();
  },
  // Streams until the client leaves.
  "/stream": (request, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write("data: half\n\n");
    return new Promise((resolve) => response.on("close", resolve));
  },
  "/large": (request, response) => {
    const size = Number(request.url.split("/")[2]);
    response.writeHead(200, { "content-length": size });
    response.end(Buffer.alloc(size, "0123456789abcdefghijklmnopqrstuvwxyz "));
    return new Promise((resolve) => response.on("close", resolve));
  },
  "/repeated": (request, response) => {
    response.setHeader("set-cookie", ["a=1; Path=/", "b=2, c", "a=1"]);
    response.setHeader("content-length", 8);
    response.end("repeated");
  },
  "/status": (request, response) => {
    response.writeHead(Number(request.url.split("/")[2]), { etag: '"1"' });
    response.end();
  },
  "/304": (request, response) => {
    response.writeHead(304, { etag: '"1"', "content-length": 1234 });
    response.end();
  },
  "/empty": (request, response) => response.end(),
  "/hints": async (request, response) => {
    response.writeEarlyHints({ link: ["</a.css>; rel=preload", "</b.js>; rel=preload"], "x-hint": "1" });
    const seen = await ask({ wait: request.headers["x-run"], number: 1, limit: 1.5 });
    response.end(seen ? "seen" : "held back");
  },
  "/trailers": (request, response) => {
    response.writeHead(200, { trailer: "x-sum, x-end" });
    response.write("with trailers");
    response.addTrailers({ "x-sum": "abc", "x-end": "1" });
    response.end();
  },
  // Trailers and no body at all, as gRPC answers an error.
  "/trailers/only": (request, response) => {
    response.writeHead(200, { trailer: "x-end" });
    response.addTrailers({ "x-end": "1" });
    response.end();
  },
  // How much of the body it still reads is a matter of chance.
  "/early": (request, response, seen) => {
    seen.early = true;
    response.writeHead(413, { "content-length": 5 });
    response.end("early");
    return read(request);
  },
  // Breaks off in the middle, once the client has the first half.
  "/abort": async (request, response) => {
    const code = Number(request.url.split("/")[2]);
    response.writeHead(200, { "content-type": "text/plain" });
    await written(response, "half");
    await ask({ wait: request.headers["x-run"], number: 1 });
    if (response.stream) response.stream.close(code);
    else response.socket.destroy();
  },
  // Refuses before any head.
  "/refuse": (request, response) => {
    const code = Number(request.url.split("/")[2]);
    if (response.stream) response.stream.close(code);
    else response.socket.destroy();
  },
  // Takes the request, and waits until the client leaves.
  "/hang": (request) => ask({ mark: `${request.headers["x-run"]}/up`, number: 1 }),
  // Marks each part of the request as it comes.
  "/upload": async (request, response, seen) => {
    let number = 0;
    request.on("data", () => ask({ mark: `${request.headers["x-run"]}/up`, number: ++number }));
    await read(request);
    response.setHeader("content-length", seen.bytes().length);
    response.end(seen.bytes());
  },
};

function find(url) {
  let path = url.split("?")[0];
  while (path && !(path in handlers)) path = path.slice(0, path.lastIndexOf("/"));
  return handlers[path] ?? handlers["/json"];
}

async function serve(request, response) {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("error", () => {});
  response.on("error", () => {});
  const seen = { bytes: () => Buffer.concat(parts) };
  const { method, url } = request;
  const over = new Promise((resolve) => response.on("close", resolve));
  await find(url)(request, response, seen);
  await over;
  await read(request);
  const what = {
    method,
    target: url,
    headers: pairs(request.rawHeaders),
    body: seen.early ? "unread" : digest(seen.bytes()),
    trailers: pairs(request.rawTrailers),
    // Nobody ended the response.
    left: !response.writableEnded,
  };
  if (request.stream && !seen.early) what.code = request.stream.rstCode;
  await ask({ note: request.headers["x-run"] ?? "", what });
}

// The server's half of a tunnel: gives every byte back and says goodbye at the end.
function upgrade(request, socket, head) {
  const parts = [head];
  socket.write("HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\nx-from: node\r\n\r\nhello ");
  socket.write(head);
  socket.on("data", (part) => (parts.push(part), socket.write(part)));
  socket.on("end", () => socket.end(" bye"));
  socket.on("error", () => {});
  socket.on("close", () => {
    const what = { method: request.method, target: request.url, headers: pairs(request.rawHeaders), tunnel: digest(Buffer.concat(parts)) };
    ask({ note: request.headers["x-run"] ?? "", what });
  });
}

async function listen(server) {
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `127.0.0.1:${server.address().port}`;
}

const keys = { cert: readFileSync(certFile), key: readFileSync(keyFile) };
const plain = http.createServer({ keepAliveTimeout: 60_000 }, serve);
plain.on("upgrade", upgrade);
const secure = http2.createSecureServer({ ...keys, allowHTTP1: true }, serve);
const h2c = http2.createServer(serve);
console.log(JSON.stringify({ h1: await listen(plain), h2c: await listen(h2c), tls: await listen(secure) }));

process.stdin.on("end", () => process.exit(0));
process.stdin.resume();
