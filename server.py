"""``python server.py --help``: the speech server."""

from voice_server.cli.entry import start

if __name__ == "__main__":
    start("voice_server.cli.serve")
