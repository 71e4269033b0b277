"""The doors that speak the languages of other vendors' clients: one file each, none owns state.

mount.py      which vendor's client asks, by path and header
errors.py     a refusal as that client expects it
operation.py  an HTTP operation and a WebSocket of one vendor
channel.py    a vendor's WebSocket messages as those of /stream-tokens, and back
"""
