"""What an operator can set: ``Settings`` from the environment, backends from backends.yaml.

Both are read once, by ``load_config``. Every mistake is a ConfigError of one line each:
file › key › what was expected.
"""

from voice_server.config.backends import BackendConfig, BackendsFile, load_backends
from voice_server.config.loading import Config, load_config
from voice_server.config.settings import CHECKOUT, ENV_PREFIX, Limits, Settings

__all__ = [
    "CHECKOUT",
    "ENV_PREFIX",
    "BackendConfig",
    "BackendsFile",
    "Config",
    "Limits",
    "Settings",
    "load_backends",
    "load_config",
]
