// ai-sdk: the SDK's transport asks, and the SDK's own server side answers, with the SDK's mock of a model.

import { createRequire } from "node:module";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createUIMessageStream, createUIMessageStreamResponse, convertToModelMessages, DefaultChatTransport, readUIMessageStream, simulateReadableStream, stepCountIs, streamText, tool } from "ai";
import { MockLanguageModelV3 } from "ai/test";
import { z } from "zod";

const out = new URL("../ai-sdk/", import.meta.url);
mkdirSync(out, { recursive: true });
const version = JSON.parse(readFileSync(createRequire(import.meta.url).resolve("ai/package.json"))).version;
const FROM = `ai ${version} (npm): its chat transport and its server side, with its mock of a model`;
const usage = { inputTokens: { total: 9, noCache: 9 }, outputTokens: { total: 4, text: 4 } };
const finish = (unified) => ({ type: "finish", finishReason: { unified, raw: unified }, usage });
const text = (id, ...deltas) => [{ type: "text-start", id }, ...deltas.map((delta) => ({ type: "text-delta", id, delta })), { type: "text-end", id }];

// A model that says these parts, one list a step.
function model(...steps) {
  return new MockLanguageModelV3({
    doStream: async () => ({ stream: simulateReadableStream({ chunks: [{ type: "stream-start", warnings: [] }, ...steps.shift()], chunkDelayInMs: null, initialDelayInMs: null }) }),
  });
}

const lines = (body) => body.match(/[^\n]*\n|[^\n]+/g) ?? [];
const user = (id, ...parts) => ({ id, role: "user", parts: parts.map((part) => (typeof part === "string" ? { type: "text", text: part } : part)) });
const HISTORY = [user("u0", "Hello"), { id: "a0", role: "assistant", parts: [{ type: "text", text: "Hi!" }] }, user("u1", "Who am I?")];

async function make(name, about, answer, episode, { messages = HISTORY, from = FROM, change = (body) => body, ending } = {}) {
  let exchange;
  const fetch = async (url, init) => {
    const response = await answer(JSON.parse(init.body));
    const body = change(await response.text());
    const headers = Object.fromEntries(["content-type", "x-vercel-ai-ui-message-stream"].map((header) => [header, response.headers.get(header)]));
    exchange = {
      path: "/api/chat",
      request: { method: "POST", target: "/api/chat", headers: { "content-type": "application/json" }, body: JSON.parse(init.body) },
      response: { status: response.status, headers, body: lines(body) },
      ...(ending ? { ending } : {}),
      episode,
    };
    return new Response(body, { status: response.status, headers: response.headers });
  };
  const stream = await new DefaultChatTransport({ api: "/api/chat", fetch }).sendMessages({ chatId: "chat-1", messages, trigger: "submit-message", abortSignal: undefined });
  // What the SDK's client has in the end.
  let last = { parts: [] };
  try {
    for await (const message of readUIMessageStream({ stream })) last = message;
  } catch { /* what failed is in the stream */ }
  const heard = last.parts.filter((part) => part.type === "text" && part.text).map((part) => part.text).join("\n");
  const said = episode?.messages.find((message) => message.role === "assistant")?.content ?? "";
  if (heard !== said) throw new Error(`${name}: ${JSON.stringify(heard)} is not ${JSON.stringify(said)}`);
  writeFileSync(new URL(`${name}.json`, out), JSON.stringify({ about, from, exchanges: [exchange] }, null, 2) + "\n");
}

const talk = (asked, answered, metadata = {}, end = "complete") => ({
  session: "chat-1", user: null, agent: null,
  messages: [{ role: "user", content: asked }, ...(answered ? [{ role: "assistant", content: answered }] : [])], metadata, end,
});
const respond = (arguments_, options = {}) => async (body) => {
  const { system, tools, model, stopWhen } = arguments_;
  const result = streamText({ model, system, tools, stopWhen, messages: await convertToModelMessages(body.messages), onError: () => {} });
  return result.toUIMessageStreamResponse({ generateMessageId: () => "a1", ...options });
};
const META = { message_id: "a1", finish_reason: "stop" };

await make("stream", "A message in pieces.", respond({ model: model([...text("0", "You are", " Ana", ". 👋"), finish("stop")]) }), talk("Who am I?", "You are Ana. 👋", META));

await make("stream-reasoning", "The model thinks first; the app tells the usage.",
  respond({ model: model([{ type: "reasoning-start", id: "r" }, { type: "reasoning-delta", id: "r", delta: "They want" }, { type: "reasoning-delta", id: "r", delta: " a name." },
    { type: "reasoning-end", id: "r" }, ...text("0", "You are Ana."), finish("stop")]) },
    { messageMetadata: ({ part }) => (part.type === "finish" ? { totalTokens: part.totalUsage.totalTokens } : undefined) }),
  talk("Who am I?", "You are Ana.", { ...META, reasoning: "They want a name.", message_metadata: { totalTokens: 13 } }));

const weather = tool({ description: "Tells the weather", inputSchema: z.object({ city: z.string() }), execute: async () => "sunny" });
const call = [{ type: "tool-input-start", id: "call_1", toolName: "weather" }, { type: "tool-input-delta", id: "call_1", delta: '{"city":' }, { type: "tool-input-delta", id: "call_1", delta: '"Lisbon"}' },
  { type: "tool-input-end", id: "call_1" }, { type: "tool-call", toolCallId: "call_1", toolName: "weather", input: '{"city":"Lisbon"}' }];
const called = { tool_calls: [{ type: "tool-input-available", toolCallId: "call_1", toolName: "weather", input: { city: "Lisbon" } }] };
await make("stream-tool", "Two steps, with a tool call between them.",
  respond({ tools: { weather }, stopWhen: stepCountIs(3), model: model([...text("t1", "Let me", " look."), ...call, finish("tool-calls")], [...text("t2", "It is", " sunny."), finish("stop")]) }),
  talk("Who am I?", "Let me look.\nIt is sunny.", { ...META, ...called }));
await make("stream-tool-call-only", "The model calls a tool and says nothing.",
  respond({ tools: { weather: tool({ inputSchema: z.object({ city: z.string() }) }) }, model: model([...call, finish("tool-calls")]) }),
  talk("Who am I?", null, { ...META, finish_reason: "tool-calls", ...called }));

await make("stream-error", "It fails in the middle; HTTP stays 200.",
  respond({ model: model([...text("0", "You are").slice(0, 2), { type: "error", error: new Error("The model failed") }]) }, { onError: () => "The model failed" }),
  talk("Who am I?", "You are", { message_id: "a1", finish_reason: "error", error: "The model failed" }, "error"));

await make("stream-crlf", "A question in parts, one of them an image; lines that end as in HTTP, and comments.",
  respond({ model: model([...text("0", "A", " cat."), finish("stop")]) }), talk("What is this?\nAnd that?", "A cat.", META),
  { messages: [user("u1", "What is this?", { type: "file", mediaType: "image/png", url: "data:image/png;base64,iVBORw0KGgo=" }, "And that?")],
    change: (body) => ": hello\r\n\r\n" + body.replaceAll("\n", "\r\n") });

await make("stream-without-marker", "A server of another make that sends neither finish nor [DONE].",
  async () => createUIMessageStreamResponse({ stream: createUIMessageStream({ execute: ({ writer }) => {
    writer.write({ type: "text-start", id: "0" });
    for (const delta of ["You are", " Ana."]) writer.write({ type: "text-delta", id: "0", delta });
    writer.write({ type: "text-end", id: "0" });
  } }) }), talk("Who am I?", "You are Ana."), { from: FROM + ", without its last event", change: (body) => body.replace("data: [DONE]\n\n", "") });
