"""`python -m streamkit`."""

from streamkit.cli import main

if __name__ == "__main__":
    main()
