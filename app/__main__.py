"""``python -m app``: the same as ``python server.py``."""

from voice_server.cli.serve import main

if __name__ == "__main__":
    main()
