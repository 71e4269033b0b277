// Cartesia's own library for Node, unmodified.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import Cartesia from "@cartesia/cartesia-js";
import { isClose, key, left, length, secureUrl, shown, turns, until, url } from "./server.mjs";

// As an ES module it does not find the package of sockets.
const Required = createRequire(import.meta.url)("@cartesia/cartesia-js").Cartesia;
const client = new Cartesia({ apiKey: key, baseURL: url, maxRetries: 0 });
const voice = { mode: "id", id: "en-us" };
const output_format = { container: "raw", encoding: "pcm_s16le", sample_rate: 24000 };
const asked = { model_id: "sonic-3", voice, output_format, transcript: "Hello." };
const TEXT = "Hello there, my friend. How are you today?";

test("the page's program speaks", async () => {
  const sound = await shown("cartesia.md", 0);
  assert.ok(isClose(sound.length / 48000, await length("Hello from my own server.")));
});

test("events carry sound and the times of words", async () => {
  let bytes = 0;
  const words = [];
  const stream = await client.tts.generateSSE({ ...asked, transcript: TEXT, add_timestamps: true });
  for await (const event of stream) {
    if (event.type === "chunk") bytes += Buffer.from(event.data, "base64").length;
    if (event.type === "timestamps") words.push(...event.word_timestamps.words);
  }
  assert.ok(isClose(bytes / 48000, await length(TEXT)));
  assert.equal(words.join(" "), TEXT);
});

test("the page's program speaks over a socket, token by token", async () => {
  const sound = await shown("cartesia.md", 1);
  assert.ok(isClose(sound.length / 48000, await length("The train leaves at nine.")));
});

async function withSocket(talk) {
  const secure = new Required({ apiKey: key, baseURL: secureUrl, maxRetries: 0 });
  const socket = await secure.tts.websocket();
  socket.on("error", () => {});
  try {
    return await talk(socket);
  } finally {
    socket.close();
  }
}

test("words of a socket increase and cover the text", async () => {
  await withSocket(async (socket) => {
    const words = [];
    const starts = [];
    let bytes = 0;
    for await (const event of socket.generate({
      ...asked, transcript: TEXT, add_timestamps: true, context_id: "a",
    })) {
      if (event.type === "chunk") bytes += event.audio.length;
      if (event.type !== "timestamps") continue;
      words.push(...event.word_timestamps.words);
      starts.push(...event.word_timestamps.start);
    }
    assert.equal(words.join(" "), TEXT);
    assert.deepEqual(starts, starts.toSorted((a, b) => a - b));
    assert.ok(isClose(bytes / 48000, await length(TEXT)));
  });
});

test("an interruption ends a context, and its socket speaks on", async () => {
  await withSocket(async (socket) => {
    const before = await turns("cartesia", "cancelled");
    const context = socket.context(asked);
    await context.push({ transcript: "This sentence is said again and again. ".repeat(400) });
    for await (const event of context.receive()) if (event.type === "chunk") break;
    await context.cancel();
    await until(async () => (await turns("cartesia", "cancelled")) > before);
    let bytes = 0;
    for await (const event of socket.generate({ ...asked, transcript: TEXT })) {
      if (event.type === "chunk") bytes += event.audio.length;
    }
    assert.ok(isClose(bytes / 48000, await length(TEXT)));
  });
});

test("what is wrong on a socket is the library's own error", async () => {
  await withSocket(async (socket) => {
    const context = socket.context({ ...asked, voice: { mode: "id", id: "nobody" } });
    await context.push({ transcript: TEXT });
    await assert.rejects(async () => {
      for await (const _ of context.receive());
    }, Required.CartesiaError);
  });
});

test("pages of voices lead to all of them", async () => {
  const ids = [];
  for await (const found of client.voices.list({ limit: 50 })) ids.push(found.id);
  assert.ok(ids.length > 100);
  assert.equal(new Set(ids).size, ids.length);
});

test("hanging up ends the turn", async () => {
  const before = await left("cartesia");
  const transcript = "This sentence is said again and again. ".repeat(400);
  const answer = await client.tts.generate({ ...asked, transcript });
  const reader = answer.body.getReader();
  assert.ok((await reader.read()).value.length);
  await reader.cancel();
  await until(async () => (await left("cartesia")) > before);
});

test("what is wrong is the library's own error", async () => {
  for (const [changes, kind] of [
    [{ transcript: "" }, Cartesia.BadRequestError],
    [{ voice: { mode: "id", id: "nobody" } }, Cartesia.NotFoundError],
    [{ model_id: "nothing" }, Cartesia.NotFoundError],
    [{ output_format: { ...output_format, sample_rate: 1 } }, Cartesia.BadRequestError],
  ]) {
    await assert.rejects(client.tts.generate({ ...asked, ...changes }), kind);
  }
  const stranger = new Cartesia({ apiKey: "wrong", baseURL: url, maxRetries: 0 });
  await assert.rejects(stranger.tts.generate(asked), Cartesia.AuthenticationError);
});
