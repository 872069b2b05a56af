"""The command of the service: `python -m service [--port 8000] …`; see `service.settings`."""

from __future__ import annotations

import sys

from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from bundle.errors import BundleError
from service.logs import configure_logs
from service.rpc.server import reserving_port
from service.server import bind, leaving_on_signals, run_worker
from service.settings import Settings
from service.supervisor import supervise


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; return the exit code. What prevents the start is one line, without a trace."""
    try:
        settings = CliApp.run(Settings, cli_args=sys.argv[1:] if arguments is None else arguments)
        configure_logs(settings.log_format)
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
    except (BundleError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
