// ElevenLabs' own library for Node, and the AI SDK's provider, unmodified.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ElevenLabsClient, ElevenLabsError } from "@elevenlabs/elevenlabs-js";
import { isClose, key, left, length, shown, until, url } from "./server.mjs";

const TEXT = "Hello there, my friend. How are you today?";
const client = new ElevenLabsClient({ baseUrl: url, apiKey: key, maxRetries: 0 });

test("the pages' programs speak", async () => {
  const wanted = await length("Hello from my own server.");
  for (const number of [0, 1]) {
    const sound = await shown("elevenlabs.md", number);
    assert.ok(isClose(sound.length / 48000, wanted), `${sound.length / 48000} s, not ${wanted}`);
  }
});

test("timestamps increase and cover the text", async () => {
  const answer = await client.textToSpeech.convertWithTimestamps("en-us", {
    text: TEXT, outputFormat: "pcm_24000",
  });
  const { characters, characterStartTimesSeconds, characterEndTimesSeconds } = answer.alignment;
  assert.equal(characters.join(""), TEXT);
  characterStartTimesSeconds.forEach((start, n) => {
    assert.ok(start <= characterEndTimesSeconds[n]);
    assert.ok(n === 0 || start >= characterStartTimesSeconds[n - 1]);
  });
});

test("voices and models are listed", async () => {
  const { voices } = await client.voices.getAll();
  assert.ok(voices.some((voice) => voice.voiceId === "en-us"));
  const models = await client.models.list();
  assert.ok(models.some((model) => model.modelId === "espeak"));
});

test("hanging up ends the turn", async () => {
  const before = await left("elevenlabs");
  const text = "This sentence is said again and again. ".repeat(400);
  const stream = await client.textToSpeech.stream("en-us", { text, outputFormat: "pcm_24000" });
  const reader = stream.getReader();
  assert.ok((await reader.read()).value.length);
  await reader.cancel();
  await until(async () => (await left("elevenlabs")) > before);
});

test("what is wrong is the library's own error", async () => {
  for (const [voice, changes, status] of [
    ["nobody", {}, 404],
    ["en-us", { text: "" }, 400],
    ["en-us", { modelId: "gpt" }, 404],
  ]) {
    await assert.rejects(client.textToSpeech.convert(voice, { text: TEXT, ...changes }), (error) => {
      assert.ok(error instanceof ElevenLabsError);
      assert.equal(error.statusCode, status);
      return true;
    });
  }
  const stranger = new ElevenLabsClient({ baseUrl: url, apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(stranger.textToSpeech.convert("en-us", { text: TEXT }), ElevenLabsError);
});
