# Voice Server: the server, the embedded engine and Qwen3-TTS, each engine in a venv of its own.
#
#   docker build -t voice-server .
#   docker build -t voice-server:cuda --build-arg TORCH_VARIANT=cuda --build-arg TORCH_CUDA=cu128 .
#   docker build -t voice-relay --target relay .
#
# docs/operations.md says how it is run. No ffmpeg and no system library is needed: what decodes and
# speaks comes in wheels.

FROM python:3.11-slim AS server
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
COPY requirements.txt ./
RUN python -m venv .venv && .venv/bin/pip install -r requirements.txt
COPY . .
RUN .venv/bin/python -m compileall -q voice_server voice_worker backends app backend server *.py

FROM server AS relay
# Not `voice`: Debian has a group of that name.
RUN useradd --uid 1000 --create-home speaker && install -d -o speaker -g speaker /app/audio
USER speaker
ENV VOICE_SERVER_HOST=0.0.0.0 VOICE_SERVER_DATA_DIR=/app/audio
VOLUME ["/app/audio"]
EXPOSE 9800
HEALTHCHECK --start-period=20s --interval=15s --timeout=5s \
  CMD ["/app/.venv/bin/python", "deploy/healthy.py", "9800"]
ENTRYPOINT ["/app/deploy/with-key.sh", "/app/.venv/bin/python", "server.py", "relay"]

FROM server AS speech
# `cpu`, or `cuda` with the CUDA of PyTorch's wheels in TORCH_CUDA. A CUDA that this torch was not
# built for falls back to the build that PyPI has.
ARG TORCH_VARIANT=cpu
ARG TORCH_CUDA=cu128
ARG BACKENDS="espeak tone qwen3"
RUN case "$TORCH_VARIANT" in \
      cpu) build=cpu ;; \
      cuda) build="$TORCH_CUDA" ;; \
      *) echo "TORCH_VARIANT is cpu or cuda, not $TORCH_VARIANT" >&2; exit 2 ;; \
    esac \
    && { UV_TORCH_BACKEND="$build" .venv/bin/python cli.py backends install $BACKENDS \
      || { [ "$TORCH_VARIANT" = cuda ] && .venv/bin/python cli.py backends install $BACKENDS; }; }
RUN useradd --uid 1000 --create-home speaker \
    && install -d -o speaker -g speaker /app/audio /app/voice_samples /home/speaker/.cache
USER speaker
# Everything that is worth keeping: voices, history, keys.
ENV VOICE_SERVER_HOST=0.0.0.0 VOICE_SERVER_DATA_DIR=/app/audio
VOLUME ["/app/audio"]
EXPOSE 8000
HEALTHCHECK --start-period=20s --interval=15s --timeout=5s \
  CMD ["/app/.venv/bin/python", "deploy/healthy.py", "8000"]
ENTRYPOINT ["/app/deploy/with-key.sh", "/app/.venv/bin/python", "server.py"]
