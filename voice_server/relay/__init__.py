"""A public door for servers behind routers: the relay, and the agent that dials it.

    client ──HTTP, WebSocket──▶ relay ◀══ one WebSocket ══ agent ──ASGI──▶ the server's application

The agent hands every stream to the same application that serves the box's own port. So there is no
second API: what the server can do, it can do through the relay.
"""
