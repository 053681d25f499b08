"""`python -m shortft_core.cli`, for launchers that start modules, such as accelerate."""

from shortft_core.cli import main

if __name__ == "__main__":
    main()
