"""Entry point: `edgenet` and `python -m edgenet`."""

from edgenet.cli.app import app


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
