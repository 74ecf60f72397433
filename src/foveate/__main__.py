"""`python -m foveate` is the same as `foveate`, for launchers that start modules."""

from foveate.cli import main

if __name__ == "__main__":
    main()
