"""Run the commands by ``python -m glas3d``."""

from glas3d.cli import main

if __name__ == "__main__":
    main()
