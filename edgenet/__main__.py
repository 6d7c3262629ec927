"""Entry point: `edgenet` and `python -m edgenet`."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from edgenet.cli.app import app

        app()
    except KeyboardInterrupt:  # no verb is there yet that says so
        sys.exit(130)


if __name__ == "__main__":
    main()
