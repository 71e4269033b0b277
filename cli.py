"""``python cli.py --help``: the command line of Voice Server."""

from voice_server.cli.app import main

if __name__ == "__main__":
    main()
