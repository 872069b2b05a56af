"""The command of the service: `python -m service [--port 8000] …`; see `service.settings`."""

from __future__ import annotations

import logging
import sys

from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from bundle.errors import BundleError
from service.api_keys import KeysFileError, read_api_keys
from service.logs import configure_logs
from service.rpc.server import reserving_port
from service.server import bind, leaving_on_signals, run_worker
from service.settings import Settings
from service.supervisor import supervise

logger = logging.getLogger("service")  # its name, however it is started


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; return the exit code. What prevents the start is one line, without a trace."""
    try:
        settings = CliApp.run(Settings, cli_args=sys.argv[1:] if arguments is None else arguments)
        configure_logs(settings.log_format)
        _check_keys(settings)
        with leaving_on_signals(), bind(settings) as listener, reserving_port(settings) as reserved:
            if reserved.workers > 1:
                supervise(reserved, listener)
            else:
                run_worker(reserved, listener)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        print(f"error: setting {'.'.join(map(str, first['loc']))}: {first['msg']}", file=sys.stderr)
        return 2
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (BundleError, KeysFileError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _check_keys(settings: Settings) -> None:
    """See that the file of the API keys can be used, and warn where there is none and others can call.

    Raises:
        KeysFileError: it cannot.
    """
    if settings.api_keys_file is not None:
        read_api_keys(settings.api_keys_file)
    elif not settings.is_private:
        logger.warning(
            "whoever can reach %s may call this server: OCTET_API_KEYS_FILE names no keys", settings.host
        )


if __name__ == "__main__":
    sys.exit(main())
