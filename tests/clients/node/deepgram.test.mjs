// Deepgram's own library for Node, unmodified.

import assert from "node:assert/strict";
import { test } from "node:test";
import { DeepgramClient, DeepgramError } from "@deepgram/sdk";
import { isClose, key, left, length, shown, until, url } from "./server.mjs";

const ws = url.replace("http", "ws");
const environment = { base: url, production: ws, agent: ws, agentRest: url };
const client = new DeepgramClient({ apiKey: key, environment, maxRetries: 0 });
const asked = { text: "Hello.", model: "en-us", encoding: "linear16", container: "none" };
const TEXT = "Hello there, my friend. How are you today?";

test("the page's program speaks", async () => {
  const sound = await shown("deepgram.md", 0);
  assert.ok(isClose(sound.length / 48000, await length("Hello from my own server.")));
});

for (const version of ["v1", "v2"]) {
  test(`the socket of ${version} speaks what is flushed`, async () => {
    const socket = await client.speak[version].connect({
      model: "en-us", encoding: "linear16", sample_rate: 24000,
    });
    let bytes = 0;
    socket.connect();
    await socket.waitForOpen();
    for (const word of TEXT.split(" ")) {
      if (version === "v1") socket.sendText({ type: "Speak", text: `${word} ` });
      else socket.sendSpeak({ type: "Speak", text: `${word} ` });
    }
    socket.sendFlush({ type: "Flush" });
    for await (const message of socket) {
      if (message instanceof Blob) bytes += message.size;
      else if (message.type === (version === "v1" ? "Flushed" : "SpeechMetadata")) break;
    }
    assert.ok(isClose(bytes / 48000, await length(TEXT)), `${bytes / 48000} s`);
  });
}

test("hanging up ends the turn", async () => {
  const before = await left("deepgram");
  const text = "This sentence is said again and again. ".repeat(400);
  const answer = await client.speak.v1.audio.generate({ ...asked, text });
  const reader = answer.stream().getReader();
  assert.ok((await reader.read()).value.length);
  await reader.cancel();
  await until(async () => (await left("deepgram")) > before);
});

test("what is wrong is the library's own error", async () => {
  for (const [changes, code] of [
    [{ text: "" }, "NO_TEXT"],
    [{ model: "nobody" }, "UNKNOWN_VOICE"],
    [{ sample_rate: 1 }, "UNSUPPORTED_FORMAT"],
  ]) {
    await assert.rejects(client.speak.v1.audio.generate({ ...asked, ...changes }), (error) => {
      assert.ok(error instanceof DeepgramError);
      assert.equal(error.statusCode, 400);
      assert.equal(error.body.err_code, code);
      return true;
    });
  }
  const stranger = new DeepgramClient({ apiKey: "wrong", environment, maxRetries: 0 });
  await assert.rejects(stranger.speak.v1.audio.generate(asked), (error) => {
    assert.equal(error.statusCode, 401);
    return error instanceof DeepgramError;
  });
});
