"""``python cli.py --help``: the command line of Voice Server."""

from voice_server.cli.entry import start

if __name__ == "__main__":
    start("voice_server.cli.app")
