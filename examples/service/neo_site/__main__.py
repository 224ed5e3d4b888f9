"""``python -m neo_site``: serve until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import os
import sys

import uvicorn

from neo_site.app import create_app
from neo_site.config import Config

# By default, a thread that decodes a page holds the interpreter for 5 ms, and a response waits for it several times.
_SWITCH_S = 0.001
_GRACE_S = 1  # for requests in flight at the end

sys.setswitchinterval(_SWITCH_S)
config = Config.from_environment(os.environ)
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs a line for each page
uvicorn.run(
    create_app(config),
    host=config.host,
    port=config.port,
    access_log=False,
    log_config=None,
    timeout_graceful_shutdown=_GRACE_S,
    server_header=False,
)
