#!/bin/sh
# Start what follows. In a container the server is reached from outside, so it needs a key: where
# none is given, one is made at the first start and kept beside the data.
set -eu
if [ -z "${VOICE_SERVER_API_KEY:-}" ]; then
  file="${VOICE_SERVER_DATA_DIR:-/app/audio}/api_key"
  if [ ! -s "$file" ]; then
    (umask 077 && python3 -c 'import secrets; print(secrets.token_urlsafe(32))' > "$file")
  fi
  VOICE_SERVER_API_KEY="$(cat "$file")"
  export VOICE_SERVER_API_KEY
  echo "no VOICE_SERVER_API_KEY was given; clients present the key in $file" >&2
fi
exec "$@"
