"""A small inference engine for Qwen3-TTS: continuous batching, text that arrives late, exact codec.

Read in this order: ``engine`` (what a step is), ``frame`` (the step on the device), ``job`` (the
text side of a slot, without torch), ``slots``, ``model``, ``codec``, ``sampler``, ``prompts``.
"""
