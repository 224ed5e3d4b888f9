"""``python -m neo_site``: serve until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import os

import uvicorn

from neo_site.app import create_app
from neo_site.config import Config

_GRACE_S = 1  # for requests under way, when it is told to go

config = Config.from_environment(os.environ)
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each page otherwise
uvicorn.run(
    create_app(config),
    host=config.host,
    port=config.port,
    access_log=False,
    log_config=None,
    timeout_graceful_shutdown=_GRACE_S,
    server_header=False,
)
