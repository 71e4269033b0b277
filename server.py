"""``python server.py --help``: the speech server."""

from voice_server.cli.serve import main

if __name__ == "__main__":
    main()
