#!/bin/sh
# Start what follows. In a container the server is reached from outside, so it needs a key: where
# none is given, one is made at the first start and kept beside the data.
set -eu
data="${VOICE_SERVER_DATA_DIR:-/app/audio}"
if [ ! -w "$data" ]; then
  echo "$data cannot be written by user $(id -u): on the host, chown $(id -u) the folder that is mounted there" >&2
  exit 1
fi
if [ -z "${VOICE_SERVER_API_KEY:-}" ]; then
  file="$data/api_key"
  if [ ! -s "$file" ]; then
    (umask 077 && python3 -c 'import secrets; print(secrets.token_urlsafe(32))' > "$file")
  fi
  VOICE_SERVER_API_KEY="$(cat "$file")"
  export VOICE_SERVER_API_KEY
  echo "no VOICE_SERVER_API_KEY was given; clients present the key in $file" >&2
fi
exec "$@"
