"""How long the suites that install much wait for a package index that stalls.

`backends install` gives up early, for a person who waits; here it is asked again.
"""

PATIENCE = {
    "UV_HTTP_RETRIES": "8",
    "UV_HTTP_CONNECT_TIMEOUT": "60",
    "UV_HTTP_TIMEOUT": "300",
    "PIP_RETRIES": "8",
    "npm_config_fetch_retries": "8",
}
